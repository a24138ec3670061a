"""Luminance and random grayscale. Shape legend: N images, C channels, H x W their size."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...check import number, shape
from .operation import on_chosen


def luminance(x: Tensor) -> Tensor:
    """Return a new `(N, 1, H, W)`, 0.2989 R + 0.587 G + 0.114 B (ITU-R BT.601); of one channel itself."""
    if x.shape[1] == 1:
        return x.clone()
    red, green, blue = x.unsqueeze(2).unbind(1)
    return torch.add(red * 0.2989, green, alpha=0.587).add_(blue, alpha=0.114)


def check_colours(x: Tensor, name: str) -> None:
    """Raise a ValueError with a sentence unless images are grey or RGB."""
    if x.shape[1] not in (1, 3):
        raise ValueError(f"{name} needs images of 1 or 3 channels, got {shape(x)}")


@dataclass(frozen=True)
class RandomGrayscale:
    """Replace the three channels of some images by their luminance; grey images stay as they are.

    Args:
        p: probability, in [0, 1].

    Raises:
        ValueError: p is outside of its range; called on images that are neither grey nor RGB.
    """

    p: float = 0.2

    def __post_init__(self) -> None:
        number("p", self.p, 0.0, 1.0)

    @property
    def draws(self) -> int:
        """Return 1."""
        return 1

    def parameters(self, u: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Return whether, `(N,)`."""
        return (u[:, 0] < self.p,)

    def __call__(self, x: Tensor, *parameters: Tensor) -> Tensor:
        """Return `(N, C, H, W)`."""
        check_colours(x, "RandomGrayscale")
        if x.shape[1] == 1:
            return x
        (chosen_N,) = parameters
        return on_chosen(x, chosen_N, lambda part: part.copy_(luminance(part)))
