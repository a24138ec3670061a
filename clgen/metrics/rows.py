"""Rows of features, and their distances block by block. Shape legend: N, M rows, D features."""

from collections.abc import Iterator

import numpy as np

BLOCK = 2**24  # distances held at once: 128 MB


def feature_rows(name: str, values: np.ndarray, least: int) -> np.ndarray:
    """Return features as float64 `(N, D)`.

    Raises:
        ValueError: another shape, fewer than `least` rows, or numbers that are not finite.
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < least or rows.shape[1] == 0:
        raise ValueError(f"{name} must be (N, D) with N >= {least}, got {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} must be finite, and {int((~np.isfinite(rows).all(1)).sum())} of {len(rows)} are not")
    return rows


def two_sets(real: np.ndarray, fake: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two sets of features as float64 `(N, D)` and `(M, D)`.

    Raises:
        ValueError: see :func:`feature_rows`; also where D differs.
    """
    one, other = feature_rows("real features", real, least), feature_rows("fake features", fake, least)
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"real and fake must have as many features, got {one.shape[1]} and {other.shape[1]}")
    return one, other


def squared_distances(rows: np.ndarray, others: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield blocks of the squared Euclidean distances `(N, M)`: which rows, and theirs to all others, >= 0.

    By ‖x‖² + ‖y‖² - 2 x·y after the mean of the others has been taken from both, which keeps the cancellation small.
    """
    centre = others.mean(0)
    rows, others = rows - centre, others - centre
    squares, other_squares = (rows**2).sum(1), (others**2).sum(1)
    step = max(1, BLOCK // len(others))
    for start in range(0, len(rows), step):
        block = slice(start, min(start + step, len(rows)))
        found = rows[block] @ others.T
        found *= -2
        found += squares[block, None]
        found += other_squares
        yield block, np.maximum(found, 0, out=found)
