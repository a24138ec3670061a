"""Data-to-data cross-entropy (D2D-CE): InfoNCE that lets easy pairs go. Shape legend: N queries, M keys."""

from typing import Literal

import torch
from torch import Tensor

from ..check import choice
from ..masks import positive_mask
from .arguments import Reduction, check_matrix, check_scalar
from .info_nce import info_nce


def d2d_ce(
    similarity: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
    temperature: float | Tensor = 0.5,
    margin_positive: float = 0.98,
    margin_negative: float = 0.02,
    variant: Literal["paper", "studiogan"] = "paper",
    reduction: Reduction = "mean",
) -> Tensor:
    """Return InfoNCE with a margin on either side (Kang et al. 2021, ReACGAN).

        L_i = -1/|P_i| sum_{p in P_i} log( e^{a_ip} / (sum_{p in P_i} e^{a_ip} + sum_{n not in P_i} w_in e^{b_in}) )
        a_ip = min(0, c_ip - margin_positive) / temperature,    b_in = max(0, c_in - margin_negative) / temperature

    with c = similarity. A positive above its margin and a negative below its own pull no more: neither gets a gradient
    through itself, and the loss does not fall below its value at the margins, log(1 + sum_n w_in). In the paper the
    positive of an example is the proxy of its class, and the negatives are the examples of other classes.
    https://arxiv.org/abs/2111.01118

    "studiogan" is what the authors' code computes instead (StudioGAN, `Data2DataCrossEntropyLoss`): from the logits of
    the negatives, and not of the positive, it subtracts the largest of a row as if for numerical stability, which
    weighs all negatives of query i down by e^{-m_i}:

        b_in = max(0, c_in - margin_negative) / temperature - m_i,   m_i = max_n (c_in - margin_negative) / temperature

    m_i takes no gradient. It is the maximum over every column that is no positive, those of weight 0 too (there: the
    examples of the same class), so that of all losses this variant alone reads what weighs nothing: set such a
    similarity to -inf to leave it out.

    Args:
        similarity: `(N, M)` floating, cosines for these margins; may hold -inf where a column must not count.
        positive: as for `info_nce`; a query without any is left out.
        weights: as for `info_nce`.
        temperature: > 0; a number or a scalar tensor, to which gradient flows.
        margin_positive: m_p of the paper, in the units of the similarity.
        margin_negative: m_n of the paper, which ties it to 1 - m_p.
        variant: `paper` or `studiogan`.
        reduction: `mean` over the queries with a positive, their `sum`, or `none`: `(N,)` with 0 for the others.

    Returns:
        Scalar, or `(N,)`, of the similarity's dtype.

    Raises:
        ValueError: another variant, a margin that is no number, or as for `info_nce`.
    """
    choice("variant", variant, ("paper", "studiogan"))
    check_scalar("margin_positive", margin_positive)
    check_scalar("margin_negative", margin_negative)
    check_matrix(similarity, positive, weights)
    is_positive = positive_mask(positive, similarity.shape[1]) > 0
    attracted = (similarity - margin_positive).clamp(max=0.0)
    repelled = (similarity - margin_negative).clamp(min=0.0)
    if variant == "studiogan":
        largest = similarity.detach().masked_fill(is_positive, -torch.inf).amax(1, keepdim=True) - margin_negative
        repelled = repelled - largest.masked_fill(largest == -torch.inf, 0.0)
    repelled = repelled.masked_fill(similarity == -torch.inf, -torch.inf)
    return info_nce(torch.where(is_positive, attracted, repelled), positive, weights, temperature, reduction)
