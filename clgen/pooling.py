"""From a feature map or tokens to one vector for each example.

Shape legend: B examples, C channels, T tokens, D feature dimension.
"""

import torch
from torch import Tensor

from ..core.check import choice

POOLS = ("mean", "sum", "max", "flatten")


def pooled(features: Tensor, pool: str) -> Tensor:
    """Return `(B, D)` features, in float32 at least.

    Args:
        features: `(B, D)`, which stay as they are; tokens `(B, T, D)`, pooled over T; or a map `(B, C, ...)` of two
            dimensions of space or more, pooled over all of them, so that D = C. A map of one dimension of space looks
            like tokens and is read as such.
        pool: mean, sum, max, or flatten, which keeps every entry: D = C x H x W.

    Raises:
        ValueError: an unknown pool, or features without a dimension to compare.
    """
    choice("pool", pool, POOLS)
    if features.ndim < 2:
        raise ValueError(f"features must have a dimension beside the batch, got shape {tuple(features.shape)}")
    if features.ndim == 2:
        return wide(features)
    if pool == "flatten":
        return wide(features.flatten(1))
    positions = (1,) if features.ndim == 3 else tuple(range(2, features.ndim))
    if pool == "max":
        return wide(features.amax(positions))
    dtype = torch.promote_types(features.dtype, torch.float32)  # in half precision a sum over a map overflows
    return features.mean(positions, dtype=dtype) if pool == "mean" else features.sum(positions, dtype=dtype)


def wide(features: Tensor) -> Tensor:
    """Return features in float32, or as they are in float64."""
    return features.to(torch.promote_types(features.dtype, torch.float32))
