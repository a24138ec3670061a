"""Noise on vectors. Shape legend: N vectors, D dimension."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..check import number, shape


@dataclass(frozen=True)
class VectorNoise:
    """Add independent Gaussian noise to each entry: `x + std * e`, e ~ N(0, 1).

    Args:
        std: standard deviation in the units of x, >= 0.

    Raises:
        ValueError: std is not a finite number >= 0; called on something that is not a floating `(N, D)`.
    """

    std: float = 0.1

    def __post_init__(self) -> None:
        number("std", self.std, 0.0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return `(N, D)` noisy vectors."""
        if x.ndim != 2 or not x.is_floating_point():
            raise ValueError(f"VectorNoise needs floating vectors (N, D), got {x.dtype} {shape(x)}")
        noise = torch.randn(x.shape, generator=generator, device=generator.device)
        return torch.add(x, noise.to(x), alpha=self.std)
