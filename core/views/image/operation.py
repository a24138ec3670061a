"""What an augmentation is composed of. Shape legend: N images, C channels, H x W their size, D numbers an image."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ...check import number


class Operation(Protocol):
    """One random operation on images, in two steps: which parameters each image gets, and what they do to it.

    The first turns uniform numbers into parameters and costs next to nothing; the second is a pure function without any
    randomness. In both, row n of what is returned depends on row n of what is given alone, and no value is read back
    from the device.
    """

    @property
    def draws(self) -> int:
        """Return D, how many uniform numbers the parameters of one image take."""
        ...

    def parameters(self, u: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Return parameters, `(N, ...)` each, that the numbers `u` `(N, D)` in [0, 1) choose for images of `size`."""
        ...

    def __call__(self, x: Tensor, *parameters: Tensor) -> Tensor:
        """Return `(N, C, H', W')` of float32 images `(N, C, H, W)` in [0, 1], in that range too; may overwrite `x`."""
        ...


def between(u: Tensor, low: float, high: float) -> Tensor:
    """Return uniform numbers of [low, high) made of uniform numbers of [0, 1)."""
    return u * (high - low) + low


def on_chosen(x: Tensor, chosen_N: Tensor, function: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """Return `x` with `function(x, *parameters)` in the chosen rows; overwrites `x`.

    A CPU computes the chosen rows only. Elsewhere their number is not known without waiting for the device, so that all
    rows are computed and one `where` picks.
    """
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        rows = chosen_N.nonzero().squeeze(1)
        if len(rows) == 0:
            return x
        part = function(x.index_select(0, rows), *(one.index_select(0, rows) for one in parameters))
        return part if len(rows) == len(x) else x.index_copy_(0, rows, part)
    return torch.where(chosen_N.view(-1, 1, 1, 1), function(x.clone(), *parameters), x)


def interval(name: str, value: Sequence[float], high: float) -> None:
    """Raise a ValueError unless `value` is two numbers in (0, high] of which the second is not smaller."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError(f"{name} must be two numbers, smallest and largest, got {value!r}")
    low = number(f"the smallest of {name}", value[0], 0.0, high, above=True)
    number(f"the largest of {name}", value[1], low, high)
