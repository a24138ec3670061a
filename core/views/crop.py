"""The random crop of CURL. Shape legend: N images, C channels, H x W their size."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..check import shape, whole
from .window import check_images, windows


@dataclass(frozen=True)
class RandomCrop:
    """Cut a random square out of each image: `(N, C, H, W) -> (N, C, size, size)` (Laskin et al. 2020, section 4.3).

    CURL (https://arxiv.org/abs/2004.04136) crops 84 of 100 pixels. All channels of an image share the crop; every
    position is equally likely. The agent that uses the encoder must see images of `size` as well (a centre crop).

    Args:
        size: side of the square in pixels, >= 1.

    Raises:
        ValueError: size is not a whole number >= 1; called on something that is not `(N, C, H, W)` with H, W >= size.
    """

    size: int

    def __post_init__(self) -> None:
        whole("size", self.size, 1)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return `(N, C, size, size)` crops."""
        check_images(x, "RandomCrop")
        n, _, h, w = x.shape
        if min(h, w) < self.size:
            raise ValueError(f"RandomCrop(size={self.size}) needs images of at least that size, got {shape(x)}")
        on = generator.device
        top = torch.randint(h - self.size + 1, (n, 1), generator=generator, device=on).to(x.device)
        left = torch.randint(w - self.size + 1, (n,), generator=generator, device=on).to(x.device)
        return windows(x, top + torch.arange(self.size, device=x.device), left, self.size)
