"""Brightness of images that shifts nothing. Shape legend: N images, C channels, H x W their size."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..check import number
from .window import check_images


@dataclass(frozen=True)
class Intensity:
    """Multiply each image by a number near 1: `x * (1 + scale * clip(e, -2, 2))`, e ~ N(0, 1) for each image.

    The other augmentation of SPR (Schwarzer et al. 2021, https://arxiv.org/abs/2007.05929), one of those that DrQ
    compares (Kostrikov et al. 2020, https://arxiv.org/abs/2004.13649). All channels of an image (stacked frames)
    change together and nothing moves, so that positions stay readable. Values are neither rounded nor clipped, as in
    SPR's code: white may become whiter than white, and uint8 images come out as float32 in the same units.

    Args:
        scale: standard deviation of the factor before the clip, >= 0; the factor is in [1 - 2 scale, 1 + 2 scale].

    Raises:
        ValueError: scale is not a finite number >= 0; called on something that is not `(N, C, H, W)`.
    """

    scale: float = 0.05

    def __post_init__(self) -> None:
        number("scale", self.scale, 0.0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return `(N, C, H, W)` images, floating."""
        check_images(x, "Intensity")
        drawn_N = torch.randn(len(x), generator=generator, device=generator.device)
        factor_N = 1.0 + self.scale * drawn_N.clamp_(-2.0, 2.0)
        dtype = x.dtype if x.is_floating_point() else torch.float32
        return x * factor_N.to(x.device, dtype).view(-1, 1, 1, 1)
