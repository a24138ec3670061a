"""VICReg: variance, invariance, covariance. Shape legend: N pairs, D feature dimension."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..check import number
from ..similarity import full_precision
from .arguments import rows


def vicreg(
    query: Tensor, key: Tensor, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
) -> Tensor:
    """Return a weighted sum that keeps pairs together and features from collapsing (Bardes et al. 2022, eq. 6).

        L = invariance s(Q, K) + variance (v(Q) + v(K)) / 2 + covariance (c(Q) + c(K))
        s = mean of (q - k)^2    v(Z) = 1/D sum_d max(0, 1 - sqrt(Var z_d + 0.0001))    c(Z) = 1/D sum_{d != e} Cov_de^2

    Variance and covariance are those of the batch with N - 1 in the denominator; features are not normalised.
    https://arxiv.org/abs/2105.04906

    Deviations, those of the authors' code, to which the weights 25, 25 and 1 belong: s is a mean over the D dimensions
    too, where eq. 5 sums over them, and the variances of the two views are averaged, where eq. 6 adds them.

    Args:
        query: `(N, D)`, embeddings of one view.
        key: `(N, D)`, of the other; gradient flows to both.
        invariance: >= 0, weight of s; lambda in the paper.
        variance: >= 0, weight of v; mu.
        covariance: >= 0, weight of c; nu.

    Returns:
        Scalar in [0, inf), float32 (float64 for such rows) also under autocast.

    Raises:
        ValueError: a weight is not a number >= 0, or the rows are not floating and of one shape with N >= 2: one pair
            has no variance.
    """
    invariance = number("invariance", invariance, 0.0)
    variance = number("variance", variance, 0.0)
    covariance = number("covariance", covariance, 0.0)
    query, key = rows("vicreg", 2, query, key)
    with full_precision(query):
        spread = (_collapsed(query) + _collapsed(key)) / 2
        return (
            invariance * F.mse_loss(query, key)
            + variance * spread
            + covariance * (_correlated(query) + _correlated(key))
        )


def _collapsed(z_ND: Tensor) -> Tensor:
    """Eq. 1 and 2."""
    return F.relu(1 - (z_ND.var(0) + 1e-4).sqrt()).mean()


def _correlated(z_ND: Tensor) -> Tensor:
    """Eq. 3 and 4."""
    z_ND = z_ND - z_ND.mean(0)
    squares_DD = (z_ND.T @ z_ND / (len(z_ND) - 1)).square()
    itself = torch.eye(len(squares_DD), dtype=torch.bool, device=z_ND.device)
    return squares_DD.masked_fill(itself, 0.0).sum() / len(squares_DD)
