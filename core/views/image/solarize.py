"""Random solarization. Shape legend: N images, C channels, H x W their size."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...check import number
from .operation import on_chosen


@dataclass(frozen=True)
class RandomSolarize:
    """Invert the values from `threshold` upwards of some images: x -> 1 - x where x >= threshold.

    Grill et al. 2020 (BYOL, https://arxiv.org/abs/2006.07733), appendix B, at threshold 0.5: for 8-bit images the same
    as 128 of 255.

    Args:
        p: probability, in [0, 1].
        threshold: in [0, 1].

    Raises:
        ValueError: an argument is outside of its range.
    """

    p: float = 0.2
    threshold: float = 0.5

    def __post_init__(self) -> None:
        number("p", self.p, 0.0, 1.0)
        number("threshold", self.threshold, 0.0, 1.0)

    @property
    def draws(self) -> int:
        """Return 1."""
        return 1

    def parameters(self, u: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Return whether, `(N,)`."""
        return (u[:, 0] < self.p,)

    def __call__(self, x: Tensor, *parameters: Tensor) -> Tensor:
        """Return `(N, C, H, W)`."""
        (chosen_N,) = parameters
        return on_chosen(x, chosen_N, lambda part: torch.where(part >= self.threshold, 1 - part, part))
