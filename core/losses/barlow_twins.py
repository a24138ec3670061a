"""Barlow Twins: the cross-correlation of two views towards the identity. Shape legend: N pairs, D feature dimension."""

import torch
from torch import Tensor

from ..check import number
from ..similarity import full_precision
from .arguments import rows


def barlow_twins(query: Tensor, key: Tensor, redundancy: float = 0.005) -> Tensor:
    """Return how far the correlations between the dimensions of two views are from the identity (Zbontar et al. 2021).

        L = sum_d (1 - C_dd)^2 + redundancy sum_d sum_{e != d} C_de^2                                   (eq. 1)
        C_de = sum_i q_id k_ie / ( sqrt(sum_i q_id^2) sqrt(sum_i k_ie^2) ),  columns centred over the batch  (eq. 2)

    https://arxiv.org/abs/2103.03230

    Deviation, as in the authors' code: 0.00001 is added to the variance of each dimension, so that one that does not
    vary over the batch has correlation 0.

    Args:
        query: `(N, D)`, embeddings of one view.
        key: `(N, D)`, of the other; gradient flows to both.
        redundancy: >= 0, weight of the correlations between different dimensions; lambda in the paper.

    Returns:
        Scalar in [0, 4 D + redundancy D (D - 1)], float32 (float64 for such rows) also under autocast.

    Raises:
        ValueError: redundancy is not a number >= 0, or the rows are not floating and of one shape with N >= 2: one pair
            has no correlation.
    """
    redundancy = number("redundancy", redundancy, 0.0)
    query, key = rows("barlow_twins", 2, query, key)
    with full_precision(query):
        correlation_DD = _standard(query).T @ _standard(key) / len(query)
        itself = torch.eye(len(correlation_DD), dtype=torch.bool, device=query.device)
        apart = correlation_DD.masked_fill(itself, 0.0).square().sum()
        return (1 - correlation_DD.diagonal()).square().sum() + redundancy * apart


def _standard(z_ND: Tensor) -> Tensor:
    z_ND = z_ND - z_ND.mean(0)
    return z_ND * (z_ND.square().mean(0) + 1e-5).rsqrt()
