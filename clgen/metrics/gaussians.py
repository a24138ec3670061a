"""The Fréchet distance of two sets of features. Shape legend: N rows, D features."""

from typing import NamedTuple

import numpy as np
from scipy import linalg

from .rows import feature_rows

BLOCK = 8192  # rows folded into the factor at a time


class Gaussian(NamedTuple):
    """Mean and covariance of features, the covariance by a factor R of it.

    Attributes:
        mean: `(D,)` float64.
        factor: `(R, D)` float64 with `factor.T @ factor` the covariance; fewer rows than D where its rank is deficient.
    """

    mean: np.ndarray
    factor: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """The covariance `(D, D)`."""
        return self.factor.T @ self.factor


def gaussian(features: np.ndarray) -> Gaussian:
    """Return mean and unbiased covariance (divided by N - 1) of features `(N, D)`.

    The factor comes from QR decompositions of the centred rows, block by block, so the covariance is never formed and
    its condition number never squared.

    Raises:
        ValueError: fewer than 2 rows, another shape, or numbers that are not finite.
    """
    rows = feature_rows("features", features, 2)
    mean = rows.mean(0)
    factor = np.empty((0, rows.shape[1]))
    for start in range(0, len(rows), BLOCK):
        stacked = np.concatenate([factor, rows[start : start + BLOCK] - mean])
        (factor,) = linalg.qr(stacked, mode="r", overwrite_a=True, check_finite=False)
        factor = factor[: rows.shape[1]]
    return Gaussian(mean, factor / np.sqrt(len(rows) - 1))


def gaussian_of(mean: np.ndarray, covariance: np.ndarray) -> Gaussian:
    """Return the Gaussian of a mean `(D,)` and a covariance `(D, D)`, symmetric; eigenvalues below 0 count as 0.

    Raises:
        ValueError: shapes that do not fit.
    """
    mean, covariance = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"a Gaussian has a mean (D,) and a covariance (D, D), got {mean.shape} and {covariance.shape}")
    values, vectors = linalg.eigh((covariance + covariance.T) / 2)
    return Gaussian(mean, np.sqrt(values.clip(0))[:, None] * vectors.T)


def frechet(one: Gaussian, other: Gaussian) -> float:
    """Return the squared Fréchet (2-Wasserstein) distance of two Gaussians, >= 0.

        d² = ‖m₁ - m₂‖² + tr(C₁ + C₂ - 2 (C₁ C₂)^½)

    With Cᵢ = RᵢᵀRᵢ the trace of the root is the sum of the singular values of R₁R₂ᵀ: no root of a matrix that is not
    symmetric is taken, nothing becomes complex, and covariances may lack rank.

    Dowson and Landau 1982; Heusel et al. 2017 (arXiv:1706.08500), Eq. 6. On Inception's pool features this is the FID;
    on others it is not, and is not called so.

    Raises:
        ValueError: they have features of different dimensions.
    """
    if one.mean.shape != other.mean.shape:
        raise ValueError(f"two Gaussians must have as many features, got {len(one.mean)} and {len(other.mean)}")
    root = linalg.svdvals(one.factor @ other.factor.T).sum()
    spread = (one.factor**2).sum() + (other.factor**2).sum() - 2 * root
    return float(max(((one.mean - other.mean) ** 2).sum() + spread, 0.0))


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Return the squared Fréchet distance of Gaussians fitted to two sets of features `(N, D)` and `(M, D)`, >= 0.

    The estimate is biased upwards, about in proportion to 1/N + 1/M: compare only at the same N and M.

    Raises:
        ValueError: fewer than 2 rows, shapes that do not fit, or numbers that are not finite.
    """
    return frechet(gaussian(real), gaussian(fake))
