"""InfoNCE: pick the positive out of all candidates. Shape legend: N queries, M keys."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..check import number, shape


def info_nce(similarity: Tensor, positive: Tensor, weights: Tensor | None = None, temperature: float = 0.1) -> Tensor:
    """Return the mean over queries of the cross-entropy of picking the positive (van den Oord et al. 2018, eq. 4).

        L_i = -1/|P_i| sum_{p in P_i} log( e^{s_ip} / (sum_{p in P_i} e^{s_ip} + sum_{n not in P_i} w_in e^{s_in}) )

    with s = similarity / temperature. Several positives follow "L_out" of Khosla et al. 2020 (SupCon, eq. 2); soft
    positives replace the mean over P_i by the mean weighted with them. https://arxiv.org/abs/1807.03748

    The loss lies in [0, inf) for one positive; a query whose only candidate is its one positive has loss 0. A query
    without any positive (a row of zeros) is left out of the mean.

    Args:
        similarity: `(N, M)` floating; may hold -inf where a column must not count.
        positive: `(N,)` long, column of each positive; or `(N, M)` bool; or `(N, M)` floating weights in [0, 1]. The
            values are not read on the way, which would stall a GPU: an index outside [0, M) raises torch's own
            IndexError on the CPU and is a device-side assertion on a GPU.
        weights: `(N, M)` floating >= 0, how much each negative counts in the denominator: 0 leaves it out, and so does
            anything below 0. A positive always counts as 1. None: 1 for all. Gradient flows into positive weights.
        temperature: > 0.

    Returns:
        Scalar of the similarity's dtype.

    Raises:
        ValueError: temperature is not a finite number > 0, or shapes and dtypes are not the above.
    """
    check_arguments(similarity, positive, weights, temperature)
    logits = similarity / temperature
    if weights is not None:
        logits = logits + _log_weights(weights, positive).to(logits.dtype)
    if positive.ndim == 1:
        return F.cross_entropy(logits, positive, ignore_index=_NEVER)
    share = positive.to(logits.dtype)
    total = share.sum(1)
    picked = F.log_softmax(logits, dim=1).masked_fill(share <= 0, 0.0)  # a -inf times 0 would be NaN
    has_positive = total > 0
    loss = -(picked * share).sum(1) / total.where(has_positive, 1.0)
    return loss.sum() / has_positive.sum().clamp(min=1)


def check_arguments(similarity: Tensor, positive: Tensor, weights: Tensor | None, temperature: float) -> None:
    """Raise a ValueError with a sentence unless shapes and dtypes are those `info_nce` documents; reads no values."""
    number("temperature", temperature, 0.0, above=True)
    if similarity.ndim != 2 or not similarity.is_floating_point() or 0 in similarity.shape:
        raise ValueError(
            f"similarity must be a floating (N, M) tensor with N, M >= 1, got {similarity.dtype} {shape(similarity)}"
        )
    index = positive.dtype == torch.long and positive.shape == similarity.shape[:1]
    mask = positive.shape == similarity.shape and (positive.dtype == torch.bool or positive.is_floating_point())
    if not index and not mask:
        n, m = similarity.shape
        raise ValueError(
            f"positive must be long ({n},) or bool or floating ({n}, {m}), got {positive.dtype} {shape(positive)}"
        )
    if weights is not None and (weights.shape != similarity.shape or not weights.is_floating_point()):
        raise ValueError(
            f"weights must be floating {shape(similarity)} like the similarity, got {weights.dtype} {shape(weights)}"
        )


_NEVER = -(2**63)  # torch ignores label -100 unless told otherwise; here it is an index out of range like any other


def _log_weights(weights: Tensor, positive: Tensor) -> Tensor:
    """Return log w with -inf for 0 (and no NaN in its gradient), and 0 for positives."""
    counts = weights > 0
    log = weights.where(counts, 1.0).log().masked_fill(~counts, -torch.inf)
    if positive.ndim == 1:
        return log.scatter(1, positive.unsqueeze(1), 0.0)
    return log.masked_fill(positive > 0, 0.0)
