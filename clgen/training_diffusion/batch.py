"""The rows of one training step, as functions of seed and step alone. Shape legend: B rows of the whole batch."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...core.data import epoch_order
from ...core.losses.contrastive_flow import other_rows
from ..diffusion.labels import dropped
from ..diffusion.pairing import paired_batch, second_views
from ..diffusion.process import Process
from ..images import Images


class Rows(NamedTuple):
    """What a process denoises in one step; b of the B rows.

    Attributes:
        clean: `(b, C, H, W)` images.
        noise: likewise, standard normal.
        timesteps: `(b,)`.
        classes: `(b,)` long labels, -1 where unknown.
        given: `(b,)` long labels that the denoiser is told, some dropped; None where it takes none.
        identity: `(b,)` long, which image of the data each row shows.
        other: `(b,)` long, for each row another one of the b, drawn uniformly.
    """

    clean: Tensor
    noise: Tensor
    timesteps: Tensor
    classes: Tensor
    given: Tensor | None
    identity: Tensor
    other: Tensor


class Drawer:
    """Draws the rows of every step for the whole batch on every process, which then takes its own.

    So W processes of B / W rows train on what one process of B rows would, and a resumed run goes on with what it would
    have had. `other` alone is drawn among a process's own rows, so that contrastive flow matching depends on W.

    Args:
        images: to draw from.
        process: of the timesteps.
        batch_size: B.
        share: of the images of a batch that are shown twice, each time with other noise.
        label_dropout: share of the labels that is dropped.
        labelled: whether the denoiser takes labels.
        conditional: whether it is told them; otherwise it is given the null class.
        seed: of all draws.
    """

    def __init__(
        self,
        images: Images,
        process: Process,
        *,
        batch_size: int,
        share: float,
        label_dropout: float,
        labelled: bool,
        conditional: bool,
        seed: int,
    ) -> None:
        self.images, self.process, self.rows, self.seed = images, process, batch_size, seed
        self.labelled, self.label_dropout = labelled, label_dropout if conditional else 1.0
        self.source = second_views(batch_size, share)
        self.each = paired_batch(batch_size, share)[0]
        self._order = lru_cache(maxsize=2)(self._order_of)

    def __call__(self, step: int, device: torch.device, mine: slice) -> Rows:
        """Return the rows `mine` of step `step`, from 0, on a device."""
        epoch, place = divmod(step, len(self.images.tensor) // self.each)
        index = torch.tensor(self._order(epoch)[place])[self.source]
        words = np.random.SeedSequence([self.seed, step]).generate_state(2)
        generator = torch.Generator(device).manual_seed(int(words[0]) << 31 ^ int(words[1]))
        timesteps = self.process.draw(self.rows, generator)
        shape = (self.rows, *self.images.tensor.shape[1:])
        noise = torch.randn(shape, generator=generator, device=device)
        classes = self.images.labels[index].to(device)
        given = dropped(classes, self.label_dropout, generator)[mine] if self.labelled else None
        clean = self.images.tensor[index[mine]].to(device, non_blocking=True)
        other = other_rows(len(clean), generator=generator, device=device)[0]
        return Rows(clean, noise[mine], timesteps[mine], classes[mine], given, index[mine].to(device), other)

    def _order_of(self, epoch: int) -> list[list[int]]:
        return epoch_order(len(self.images.tensor), epoch, seed=self.seed, batch_size=self.each)
