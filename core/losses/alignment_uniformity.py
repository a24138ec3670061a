"""Alignment and uniformity on the unit sphere. Shape legend: N pairs or rows, D feature dimension."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..check import number
from ..similarity import full_precision, safe_norm
from .arguments import rows


def alignment_uniformity(
    query: Tensor,
    key: Tensor,
    align: float = 1.0,
    spread: float = 1.0,
    alpha: float = 2.0,
    t: float = 2.0,
) -> Tensor:
    """Return `align * alignment(q, k) + spread * (uniformity(q) + uniformity(k)) / 2` (Wang and Isola 2020, section 5).

    The two properties that InfoNCE has in the limit of many negatives, asked for directly.
    https://arxiv.org/abs/2005.10242

    Args:
        query: `(N, D)`, features of one view; normalised here.
        key: `(N, D)`, of the other; gradient flows to both.
        align: >= 0, weight of `alignment`.
        spread: >= 0, weight of `uniformity`.
        alpha: > 0, see `alignment`.
        t: > 0, see `uniformity`.

    Returns:
        Scalar, float32 (float64 for such rows) also under autocast.

    Raises:
        ValueError: a number is out of range, or the rows are not floating and of one shape with N >= 2.
    """
    align, spread = number("align", align, 0.0), number("spread", spread, 0.0)
    query, key = rows("alignment_uniformity", 2, query, key)
    return align * alignment(query, key, alpha) + spread * (uniformity(query, t) + uniformity(key, t)) / 2


def alignment(query: Tensor, key: Tensor, alpha: float = 2.0) -> Tensor:
    """Return the mean distance of the normalised pairs to the power alpha (Wang and Isola 2020, section 4.1).

        L = mean_i |q_i - k_i|^alpha, in [0, 2^alpha]; smaller is better

    Args:
        query: `(N, D)`; normalised here.
        key: `(N, D)`, row i the partner of query i.
        alpha: > 0.

    Raises:
        ValueError: alpha is not a number > 0, or the rows are not floating and of one shape with N >= 1.
    """
    alpha = number("alpha", alpha, 0.0, above=True)
    query, key = rows("alignment", 1, query, key)
    with full_precision(query):
        square = (_normalised(query) - _normalised(key)).square().sum(1)
        alike = square == 0  # where a power below 1 has no gradient
        return square.masked_fill(alike, 1.0).pow(alpha / 2).masked_fill(alike, 0.0).mean()


def uniformity(features: Tensor, t: float = 2.0) -> Tensor:
    """Return the logarithm of the mean Gaussian potential of all pairs of rows (Wang and Isola 2020, section 4.1).

        L = log mean_{i < j} e^{-t |z_i - z_j|^2}, in [-4 t, 0]; smaller is better

    Args:
        features: `(N, D)`; normalised here.
        t: > 0.

    Raises:
        ValueError: t is not a number > 0, or the features are not floating `(N, D)` with N >= 2: one row has no other.
    """
    t = number("t", t, 0.0, above=True)
    (features,) = rows("uniformity", 2, features)
    with full_precision(features):
        square = F.pdist(_normalised(features)).square()
        return torch.logsumexp(-t * square, 0) - math.log(len(square))


def _normalised(z_ND: Tensor) -> Tensor:
    return z_ND / safe_norm(z_ND).unsqueeze(1)
