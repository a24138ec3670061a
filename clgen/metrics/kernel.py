"""The kernel distance of two sets of features. Shape legend: N, M rows, D features."""

from typing import NamedTuple

import numpy as np

from ...core.check import whole
from .rows import BLOCK, two_sets

SUBSET = 1000  # rows of a subset, at most: that of Bińkowski et al.


class KernelDistance(NamedTuple):
    """Mean and standard deviation of the squared MMD over subsets; the subsets overlap, so this is no standard error.

    Attributes:
        mean: may be < 0, since the estimate is unbiased.
        sd: of the subsets' values.
        subset_size: rows of each subset.
    """

    mean: float
    sd: float
    subset_size: int


def squared_mmd(real: np.ndarray, fake: np.ndarray) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy, with a polynomial kernel.

        MMD² = Σ_{i≠j} k(xᵢ, xⱼ) / N(N-1) + Σ_{i≠j} k(yᵢ, yⱼ) / M(M-1) - 2 Σ_{i,j} k(xᵢ, yⱼ) / NM,
        k(x, y) = (x·y / D + 1)³

    Bińkowski et al. 2018 (arXiv:1801.01401), Eq. 4. It is < 0 about half the time where both sets come from one
    distribution. N x M kernel values are never held at once.

    Args:
        real: `(N, D)`, N >= 2.
        fake: `(M, D)`, M >= 2.

    Raises:
        ValueError: fewer rows, shapes that do not fit, or numbers that are not finite.
    """
    x, y = two_sets(real, fake, 2)
    own = [(_sum(z, z) - ((z**2).mean(1) + 1) ** 3 @ np.ones(len(z))) / (len(z) * (len(z) - 1)) for z in (x, y)]
    return float(own[0] + own[1] - 2 * _sum(x, y) / (len(x) * len(y)))


def kernel_distance(
    real: np.ndarray, fake: np.ndarray, *, subsets: int = 100, subset_size: int | None = None, seed: int = 0
) -> KernelDistance:
    """Return the kernel distance (KID on Inception's features): the mean of :func:`squared_mmd` over random subsets.

    Args:
        real: `(N, D)`.
        fake: `(M, D)`.
        subsets: how many, >= 1; each is drawn without replacement, from both sets.
        subset_size: rows of each, 2 to min(N, M); None: half of the smaller set, 1,000 at most, so that subsets differ.
        seed: of the draws.

    Raises:
        ValueError: a number out of range, or see :func:`squared_mmd`.
    """
    x, y = two_sets(real, fake, 2)
    smaller = min(len(x), len(y))
    size = max(2, min(SUBSET, smaller // 2)) if subset_size is None else whole("subset_size", subset_size, 2)
    if size > smaller:
        raise ValueError(f"subset_size must be <= the smaller set's rows, {smaller}, got {size}")
    random = np.random.default_rng(whole("seed", seed))
    values = [
        squared_mmd(*(z[random.choice(len(z), size, replace=False)] for z in (x, y)))
        for _ in range(whole("subsets", subsets, 1))
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values)), size)


def _sum(x: np.ndarray, y: np.ndarray) -> float:
    """Return the sum of all kernel values between two sets, block by block."""
    step = max(1, BLOCK // len(y))
    return sum(float(((x[i : i + step] @ y.T / x.shape[1] + 1) ** 3).sum()) for i in range(0, len(x), step))
