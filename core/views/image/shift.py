"""Random shift by whole pixels. Shape legend: N images, C channels, H x W their size."""

from dataclasses import dataclass

from torch import Tensor

from ...check import whole
from ..shift import shifted


@dataclass(frozen=True)
class PixelShift:
    """Shift each image by whole pixels, up to `pad` in each direction; border pixels repeat (`RandomShift`, DrQ).

    Args:
        pad: largest shift in pixels, >= 1.

    Raises:
        ValueError: pad is not a whole number >= 1.
    """

    pad: int = 4

    def __post_init__(self) -> None:
        whole("pad", self.pad, 1)

    @property
    def draws(self) -> int:
        """Return 2: how far down, how far right."""
        return 2

    def parameters(self, u: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Return `(N, 2)` long, how far down and right, in [0, 2 pad]."""
        return ((u * (2 * self.pad + 1)).long(),)

    def __call__(self, x: Tensor, *parameters: Tensor) -> Tensor:
        """Return `(N, C, H, W)`."""
        (drawn_N2,) = parameters
        return shifted(x, drawn_N2, self.pad)
