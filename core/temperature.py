"""A temperature that is learned."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .check import number


class LearnedTemperature(nn.Module):
    """A temperature with a gradient, as CLIP learns it (Radford et al. 2021, section 2.5).

    The parameter is log t, so that a step changes t by a factor and t stays above 0. The temperature stays within
    [low, high]; by default 1 / t <= 100, as in the paper. Give its value to a loss as `temperature=module()`, and leave
    the parameter out of weight decay, which would pull t towards 1. https://arxiv.org/abs/2103.00020

    At a bound, a gradient whose descent would lead further out is 0, and one that leads back passes as if there was no
    bound, so that the temperature can leave it again. Momentum may still carry the parameter a little beyond; the value
    stays at the bound meanwhile.

    Deviation: the paper clips the parameter after each update; here nobody has to remember to.

    Args:
        initial: where it begins, in [low, high]; the paper's 0.07.
        low: > 0, smallest temperature.
        high: > low, largest temperature.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(self, initial: float = 0.07, low: float = 0.01, high: float = 10.0) -> None:
        super().__init__()
        self.low = number("low", low, 0.0, above=True)
        self.high = number("high", high, self.low, above=True)
        self.log = nn.Parameter(torch.tensor(math.log(number("initial", initial, self.low, self.high))))

    def forward(self) -> Tensor:
        """Return the temperature as a scalar tensor in [low, high], up to rounding."""
        clamped: Tensor = _Clamp.apply(self.log, math.log(self.low), math.log(self.high))
        return clamped.exp()

    def extra_repr(self) -> str:
        """Return the bounds."""
        return f"low={self.low:g}, high={self.high:g}"


class _Clamp(torch.autograd.Function):
    """Clamp a scalar; its gradient is cut only where a step against it would lead out of the bounds, or further out."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.bounds = low, high
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (value,) = ctx.saved_tensors
        low, high = ctx.bounds
        outwards = ((value <= low) & (gradient > 0)) | ((value >= high) & (gradient < 0))
        return gradient.masked_fill(outwards, 0.0), None, None
