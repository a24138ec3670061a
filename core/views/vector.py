"""A view of vectors. Shape legend: N vectors, D dimension."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..check import number
from ..check import shape as shape_of
from .draw import uniform


class StandardisedNoise:
    """Standardise vectors and add independent Gaussian noise: `(x - mean) / std + noise * e`, e ~ N(0, 1).

    Args:
        noise: standard deviation of the noise, in standard deviations of the data, >= 0.
        shape: `(D,)` of the vectors.
        mean: D numbers.
        std: D numbers > 0.

    Attributes:
        draws: D, one uniform number an entry, of which the normal quantile is taken.
        shape: `(D,)` of the views.

    Raises:
        ValueError: an argument is outside of its range; called on something that is not a floating `(N, D)`.
    """

    def __init__(
        self, noise: float = 0.1, *, shape: Sequence[int], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.noise = number("noise", noise, 0.0)
        self.shape = tuple(shape)
        if len(self.shape) != 1:
            raise ValueError(f"StandardisedNoise needs vectors, shape (D,), got {self.shape}")
        self.draws = self.shape[0]
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != self.draws:
                raise ValueError(f"{name} must be one number an entry, {self.draws} in all, got {len(values)}")
        if min(std) <= 0:
            raise ValueError(f"std must be > 0, got {min(std)}")
        self._statistics_2D = torch.tensor([list(mean), list(std)], dtype=torch.float32)
        self._on_device = {torch.device("cpu"): self._statistics_2D}

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a view of vectors `(N, D)`, float32."""
        return self.apply(x, uniform(len(x), self.draws, generator, x.device))

    def apply(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the view that the numbers `u` `(N, D)` in [0, 1) make of vectors `x`."""
        if x.shape[1:] != self.shape or not x.is_floating_point():
            raise ValueError(f"StandardisedNoise needs floating vectors (N, {self.draws}), got {x.dtype} {shape_of(x)}")
        if x.device not in self._on_device:
            self._on_device[x.device] = self._statistics_2D.to(x.device)
        mean_D, std_D = self._on_device[x.device]
        normal = torch.erfinv(u.clamp(min=2.0**-25) * 2 - 1) * math.sqrt(2)  # a 0 would be minus infinity
        return (x.float() - mean_D) / std_D + self.noise * normal
