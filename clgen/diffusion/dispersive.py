"""Dispersive loss: features of a batch keep apart from each other. Shape legend: B rows of a batch, D dimension."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ...core.check import choice, number
from ...core.losses.dispersive import (
    dispersive_covariance,
    dispersive_hinge,
    dispersive_info_nce_l2,
    normalised,
)
from ...core.pairs import Outcome
from ...core.samplers import Queue
from ..method import Context, Features, GenerativeMethod, Sizes

VARIANTS = ("info_nce_l2", "hinge", "covariance")


class Dispersive(GenerativeMethod):
    """Wang and He 2025, table 2, https://arxiv.org/abs/2506.09027: repulsion alone, without pairs and without heads.

    Three forms, see `contraux.core.losses.dispersive`. On features as they are, the loss falls to its floor by making
    them larger and spreads nothing; `normalize` takes that way out, and two metrics tell. `saturation` is L / (-log M)
    of M rows compared for `info_nce_l2`, the share of pairs beyond the margin for `hinge`, and is not there for
    `covariance`. `scale` is the root mean square of the features, which should stay where it was.

    With a queue the rows of earlier batches are kept away from too, as in Repulsor (https://arxiv.org/abs/2512.08648),
    whose projection head is left out.

    Deviations: `normalize: null` is the authors' code, but for the temperature, which theirs has at 1.

    Args:
        sizes: of the tap `features`.
        variant: `info_nce_l2`, `hinge` or `covariance`.
        normalize: `l2`, `whiten` or None, see `contraux.core.losses.dispersive.normalised`.
        temperature: > 0, of `info_nce_l2`.
        margin: > 0, of `hinge`: a squared distance.
        queue: rows of earlier batches to remember, or None.

    Raises:
        ValueError: a value out of its range.
    """

    roles = ("denoise",)

    def __init__(
        self,
        sizes: Sizes,
        *,
        variant: str = "info_nce_l2",
        normalize: str | None = "l2",
        temperature: float = 0.5,
        margin: float = 1.0,
        queue: int | None = None,
    ) -> None:
        super().__init__()
        self.variant, self.normalize = choice("variant", variant, VARIANTS), normalize
        normalised(torch.zeros(2, 1), normalize)  # an unknown way is refused here, not at the first batch
        self.margin = number("margin", margin, 0.0, above=True)
        temperature = number("temperature", temperature, 0.0, above=True)
        self.queue = None if queue is None else Queue(sizes["features"][0], queue)
        losses: dict[str, Callable[..., Tensor]] = {
            "info_nce_l2": partial(dispersive_info_nce_l2, temperature=temperature),
            "hinge": partial(dispersive_hinge, margin=self.margin),
            "covariance": dispersive_covariance,
        }
        self.loss = losses[variant]

    def forward(self, features: Features, context: Context) -> Outcome:
        """Return loss and metrics."""
        h = features["denoise"]["features"]
        z = normalised(h, self.normalize)
        memory = None if self.queue is None else self.queue.memory()
        remembered = None if memory is None else memory.key.clone()  # what is remembered may change before backward
        loss = self.loss(z, remembered)
        metrics = {"scale": h.detach().square().mean().sqrt()}
        every = len(h) + (0 if remembered is None else len(remembered))
        if self.variant == "info_nce_l2":
            metrics["saturation"] = loss.detach() / -math.log(every)
        if self.variant == "hinge":
            with torch.no_grad():
                far = torch.cdist(z, z if remembered is None else torch.cat((z, remembered))) ** 2 >= self.margin
            metrics["saturation"] = far.sum() / (far.numel() - len(h))
        if self.queue is not None:
            self.queue.remember(z, {})
        return Outcome(loss, metrics)
