"""InfoNCE: pick the positive out of all candidates. Shape legend: N queries, M keys."""

import torch.nn.functional as F
from torch import Tensor

from .arguments import Reduction, check_matrix, check_reduction, check_temperature, log_weights, reduced, scaled


def info_nce(
    similarity: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    reduction: Reduction = "mean",
) -> Tensor:
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
        temperature: > 0; a number or a scalar tensor, to which gradient flows.
        reduction: `mean` over the queries with a positive, their `sum`, or `none`: `(N,)` with 0 for the others.

    Returns:
        Scalar, or `(N,)`, of the similarity's dtype.

    Raises:
        ValueError: temperature is not a finite number > 0, or shapes and dtypes are not the above.
    """
    check_matrix(similarity, positive, weights)
    check_temperature(temperature)
    logits = scaled(similarity, temperature)
    if weights is not None:
        logits = logits + log_weights(weights, positive).to(logits.dtype)
    if positive.ndim == 1:
        check_reduction(reduction)
        return F.cross_entropy(logits, positive, ignore_index=_NEVER, reduction=reduction)
    share = positive.to(logits.dtype)
    total = share.sum(1)
    has_positive = total > 0
    logits = logits.masked_fill(~has_positive.unsqueeze(1), 0.0)  # a row of -inf has a gradient of NaN
    picked = F.log_softmax(logits, dim=1).masked_fill(share <= 0, 0.0)  # a -inf times 0 would be NaN
    loss = -(picked * share).sum(1) / total.where(has_positive, 1.0)
    return reduced(loss, has_positive, reduction)


_NEVER = -(2**63)  # torch ignores label -100 unless told otherwise; here it is an index out of range like any other
