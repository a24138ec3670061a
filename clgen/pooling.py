"""From a feature map or tokens to one vector for each example.

Shape legend: B examples, C channels, T tokens, D feature dimension.
"""

from torch import Tensor

from ..core.check import choice

POOLS = ("mean", "sum", "max", "flatten")


def pooled(features: Tensor, pool: str) -> Tensor:
    """Return `(B, D)` features.

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
        return features
    if pool == "flatten":
        return features.flatten(1)
    positions = (1,) if features.ndim == 3 else tuple(range(2, features.ndim))
    if pool == "max":
        return features.amax(positions)
    return features.mean(positions) if pool == "mean" else features.sum(positions)
