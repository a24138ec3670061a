"""Samples while training, from noise that stays the same, so that one sees them become images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...core.check import number, whole
from ..diffusion.labels import NULL, takes_labels
from ..diffusion.process import Process
from ..images import save_grid
from .sampling import sample


@dataclass
class Grids:
    """Draws `samples/step_000200.png` and so on.

    Args:
        folder: of the run.
        shape: `(C, H, W)` of an image.
        classes: how many; 0 for a denoiser that is told none.
        every: steps between grids, >= 1; None: only the last.
        count: images of a grid; of a conditional denoiser each column is a class.
        sampling_steps: of the sampler.
        guidance: >= 1, of a conditional denoiser.
        seed: of the noise.

    Raises:
        ValueError: a value breaks its rule.
    """

    folder: Path
    shape: Sequence[int]
    classes: int = 0
    every: int | None = 200
    count: int = 50
    sampling_steps: int = 20
    guidance: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        if self.every is not None:
            whole("every", self.every, 1)
        whole("count", self.count, 1)
        whole("sampling_steps", self.sampling_steps, 1)
        number("guidance", self.guidance, 1)

    def draw(self, model: nn.Module, process: Process, step: int) -> None:
        """Sample, and write the PNG; images of other than 1 or 3 channels are not drawn."""
        if self.shape[0] not in (1, 3):
            return
        device = next(model.parameters()).device
        noise = fixed_noise(self.count, self.shape, self.seed, device)
        labels = labels_for(model, self.count, self.classes, device)
        images = sample(
            model, process, noise, steps=self.sampling_steps, labels=labels, guidance=self.guidance, seed=self.seed
        )
        columns = self.classes if 0 < self.classes <= 20 else 10
        save_grid(images, self.folder / "samples" / f"step_{step:06d}.png", columns=min(columns, self.count))


def fixed_noise(count: int, shape: Sequence[int], seed: int, device: torch.device) -> Tensor:
    """Return `(count, C, H, W)` standard normal noise, the same on every device."""
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(seed)).to(device)


def labels_for(model: nn.Module, count: int, classes: int, device: torch.device) -> Tensor | None:
    """Return `(count,)` labels 0, 1, ... again and again; the null class without classes; None if none are taken."""
    if not takes_labels(model):
        return None
    if classes == 0:
        return torch.full((count,), NULL, device=device)
    return torch.arange(count, device=device) % classes
