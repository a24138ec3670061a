"""Triplet loss: the positive leads every negative by a margin. Shape legend: N queries, M keys."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..check import number
from .arguments import Reduction, check_matrix, has_positive, positive_mean, reduced, split


def triplet(
    similarity: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
    margin: float = 0.2,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return the mean violation of the margin between positives and negatives (Schroff et al. 2015, eq. 3).

        L_i = mean_{p in P_i} sum_n w_in max(0, c_in - c_ip + margin) / sum_n w_in,    c = similarity

    The margin is in the units of the similarity, and there is no temperature. With cosines it is the similarity form;
    the distance form is the same with `contraux.core.similarity.negative_euclidean`, whose -c is the distance: it then
    equals `torch.nn.functional.triplet_margin_loss` over all triplets, and with `squared=True` the paper's loss. A
    sampler with weight on one negative only makes it the hardest or semi-hard triplet. https://arxiv.org/abs/1503.03832

    Soft positives weigh the mean over P_i. A query without negatives has loss 0 and no gradient.

    Deviation: the mean over all triplets of a query, where the paper sums over chosen ones.

    Args:
        similarity: `(N, M)` floating, larger is more alike; may hold -inf where a column must not count.
        positive: as for `info_nce`; a query without any is left out.
        weights: `(N, M)` floating >= 0, how much each negative counts in the mean; 0 leaves it out. Positives' entries
            are ignored. None: 1 for all. Gradient flows into positive weights.
        margin: >= 0, lead that is asked for.
        reduction: `mean` over the queries with a positive, their `sum`, or `none`: `(N,)` with 0 for the others.

    Returns:
        Scalar, or `(N,)`, of the similarity's dtype, in [0, inf).

    Raises:
        ValueError: margin is not a number >= 0, or shapes and dtypes are not those of `info_nce`.
    """
    margin = number("margin", margin, 0.0)
    check_matrix(similarity, positive, weights)
    similarity, share, weight = split(similarity, positive, weights)
    if positive.ndim == 1:
        violation = F.relu(similarity - similarity.gather(1, positive.unsqueeze(1)) + margin)
        loss = (weight * violation).sum(1)
    else:
        loss = positive_mean(_violations(similarity, share, weight, margin), share)
    total = weight.sum(1)
    return reduced(loss / total.where(total > 0, 1.0), has_positive(positive), reduction)


def _violations(similarity: Tensor, share: Tensor, weight: Tensor, margin: float) -> Tensor:
    """Return `(N, M)` sums over n of w_n max(0, c_n - c_p + margin) for every column as p, without an (N, M, M).

    Over sorted similarities the negatives above c_p - margin are those from one place on, and sums up to a place are
    running sums: O(M log M) a query.
    """
    similarity = similarity - positive_mean(similarity, share).detach().unsqueeze(1)  # fewer digits cancel below
    level = similarity - margin
    order = similarity.detach().argsort(1)
    ordered, weight = similarity.gather(1, order), weight.gather(1, order)
    place = torch.searchsorted(ordered.detach().contiguous(), level.detach().contiguous(), right=True)
    count, amount = (F.pad(x.cumsum(1), (1, 0)) for x in (weight, weight * ordered))
    count, amount = (x[:, -1:] - x.gather(1, place) for x in (count, amount))
    return (amount - level * count).clamp(min=0.0)
