"""Decoupled contrastive learning: the positive leaves the denominator. Shape legend: N queries, M keys."""

import torch
from torch import Tensor

from ..check import number
from .arguments import (
    Reduction,
    check_matrix,
    check_temperature,
    has_positive,
    log_sum,
    positive_mean,
    reduced,
    split,
)


def decoupled(
    similarity: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return DCL, InfoNCE without the positive among the candidates (Yeh et al. 2022, eq. 5 and 6, without weights).

        L_i = -s_ip + log sum_{n not in P_i} w_in e^{s_in},    s = similarity / temperature

    The gradient of a query does not fade as its positive becomes easy, which helps small batches. The loss is unbounded
    on both sides. https://arxiv.org/abs/2110.06848

    Several positives: the mean of s_ip over P_i, weighted with soft ones. A query without negatives has loss 0 and no
    gradient, though the formula tends to -inf: there is nothing to contrast with.

    Args:
        similarity: `(N, M)` floating; may hold -inf where a column must not count.
        positive: as for `info_nce`; a query without any is left out.
        weights: as for `info_nce`.
        temperature: > 0; a number or a scalar tensor, to which gradient flows.
        reduction: `mean` over the queries with a positive, their `sum`, or `none`: `(N,)` with 0 for the others.

    Returns:
        Scalar, or `(N,)`, of the similarity's dtype.

    Raises:
        ValueError: as for `info_nce`.
    """
    check_matrix(similarity, positive, weights)
    check_temperature(temperature)
    similarity, share, weight = split(similarity, positive, weights)
    loss = _decoupled(similarity, share, weight, temperature, 1.0)
    return reduced(loss, has_positive(positive), reduction)


def dclw(
    similarity: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    sigma: float = 0.5,
) -> Tensor:
    """Return DCLW, `decoupled` with less weight on positives that are alike already (Yeh et al. 2022, section 3.3).

        L_i = -v_i s_ip + log sum_{n not in P_i} w_in e^{s_in}    v_i = 2 - e^{c_ip / sigma} / mean_j e^{c_jp / sigma}

    with c = similarity and s = c / temperature. v comes from a von Mises-Fisher density, takes no gradient, has mean 1
    over the queries with a positive, and may fall below 0. It depends on all of them, so that there is no `reduction`.
    https://arxiv.org/abs/2110.06848

    Args:
        similarity: `(N, M)` floating, in the paper cosines.
        positive: as for `decoupled`.
        weights: as for `decoupled`.
        temperature: > 0; a number or a scalar tensor, to which gradient flows.
        sigma: > 0, in the units of the similarity: how sharply v tells positives apart.

    Returns:
        Scalar of the similarity's dtype.

    Raises:
        ValueError: sigma is not a number > 0, or as for `info_nce`.
    """
    number("sigma", sigma, 0.0, above=True)
    check_matrix(similarity, positive, weights)
    check_temperature(temperature)
    similarity, share, weight = split(similarity, positive, weights)
    used = share.sum(1) > 0
    score = positive_mean(similarity, share).detach() / sigma
    relative = used.sum() * score.masked_fill(~used, torch.finfo(score.dtype).min).softmax(0)
    return reduced(_decoupled(similarity, share, weight, temperature, 2 - relative), used, "mean")


def _decoupled(
    similarity: Tensor, share: Tensor, weight: Tensor, temperature: float | Tensor, pull: float | Tensor
) -> Tensor:
    logits = similarity / temperature
    loss = log_sum(logits, weight) - pull * positive_mean(logits, share)
    return loss.masked_fill(~(weight != 0).any(1), 0.0)
