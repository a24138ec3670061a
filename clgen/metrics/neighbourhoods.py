"""Precision, recall, density and coverage. Shape legend: N real rows, M fake rows, D features."""

from typing import NamedTuple

import numpy as np

from ...core.check import whole
from .rows import squared_distances, two_sets


class Manifold(NamedTuple):
    """How fakes lie among real rows.

    Attributes:
        precision: share of fakes within the neighbourhood of a real row, [0, 1]: are they realistic?
        recall: share of real rows within the neighbourhood of a fake, [0, 1]: is everything made?
        density: how many real neighbourhoods a fake lies in, over k; >= 0, about 1 for real rows; outliers among the
            real rows move it less than precision.
        coverage: share of real rows with a fake in their neighbourhood, [0, 1].
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(real: np.ndarray, fake: np.ndarray, k: int = 5, *, real_radii: np.ndarray | None = None) -> Manifold:
    """Return precision, recall, density and coverage; the neighbourhood of a row reaches to its k-th nearest own kind.

        precision = Σⱼ 1[∃i: ‖yⱼ - xᵢ‖ < rₖ(xᵢ)] / M         density  = Σⱼ Σᵢ 1[‖yⱼ - xᵢ‖ < rₖ(xᵢ)] / kM
        recall    = Σᵢ 1[∃j: ‖yⱼ - xᵢ‖ < rₖ(yⱼ)] / N         coverage = Σᵢ 1[∃j: ‖yⱼ - xᵢ‖ < rₖ(xᵢ)] / N

    Kynkäänniemi et al. 2019 (arXiv:1904.06991), Eq. 1 and 2; Naeem et al. 2020 (arXiv:2002.09797), Eq. 5 and 6. Blocks
    of the distances are held at a time, never all.

    Deviations: `<` where Kynkäänniemi et al. have `<=`, as in the authors' `prdc`. They use k = 3 on 50,000 images.

    Args:
        real: `(N, D)`, N > k.
        fake: `(M, D)`, M > k.
        k: which neighbour, >= 1.
        real_radii: `(N,)` of :func:`squared_radii` of the real rows, where they are known.

    Raises:
        ValueError: a number out of range, too few rows, shapes that do not fit, or numbers that are not finite.
    """
    k = whole("k", k, 1)
    x, y = two_sets(real, fake, k + 1)
    real_radii = squared_radii(x, k) if real_radii is None else real_radii
    fake_radii = squared_radii(y, k)
    precise = np.zeros(len(y), dtype=bool)
    recalled, covered, inside = 0, 0, 0
    for block, distances in squared_distances(x, y):
        within = distances < real_radii[block, None]
        precise |= within.any(0)
        inside += int(within.sum())
        covered += int(within.any(1).sum())
        recalled += int((distances < fake_radii).any(1).sum())
    return Manifold(
        precision=float(precise.mean()),
        recall=recalled / len(x),
        density=inside / (k * len(y)),
        coverage=covered / len(x),
    )


def squared_radii(rows: np.ndarray, k: int) -> np.ndarray:
    """Return `(N,)`: each row's squared distance to its k-th nearest other row."""
    radii = np.empty(len(rows))
    for block, distances in squared_distances(rows, rows):
        own = np.arange(block.start, block.stop)
        distances[own - block.start, own] = np.inf  # a row is no neighbour of itself
        radii[block] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radii
