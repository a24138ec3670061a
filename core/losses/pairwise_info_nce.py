"""InfoNCE of every positive pair on its own. Shape legend: N queries, M keys."""

import torch.nn.functional as F
from torch import Tensor

from .arguments import Reduction, check_matrix, check_temperature, has_positive, log_sum, positive_mean, reduced, split


def pairwise_info_nce(
    similarity: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return InfoNCE in which the positives of a query do not compete with each other (Hjelm et al. 2019, DIM).

        L_i = -1/|P_i| sum_{p in P_i} log( e^{s_ip} / (e^{s_ip} + sum_{n not in P_i} w_in e^{s_in}) )

    with s = similarity / temperature. Each positive alone stands against the negatives, where `info_nce` (SupCon) has
    all positives in the denominator; for one positive they are equal. With a global vector as query, the places of its
    own feature map as positives and the places of the other maps as negatives it is the loss of Deep InfoMax and
    InfoMax-GAN; with labels it is NT-Xent as metric learning knows it. https://arxiv.org/abs/1808.06670

    It costs no more than `info_nce`: the sum over the negatives is taken once for each query. A query without negatives
    has loss 0. Soft positives weigh the mean over P_i.

    Args:
        similarity: `(N, M)` floating; may hold -inf where a column must not count.
        positive: as for `info_nce`; a query without any is left out.
        weights: as for `info_nce`.
        temperature: > 0; a number or a scalar tensor, to which gradient flows.
        reduction: `mean` over the queries with a positive, their `sum`, or `none`: `(N,)` with 0 for the others.

    Returns:
        Scalar, or `(N,)`, of the similarity's dtype, in [0, inf).

    Raises:
        ValueError: as for `info_nce`.
    """
    check_matrix(similarity, positive, weights)
    check_temperature(temperature)
    similarity, share, weight = split(similarity, positive, weights)
    logits = similarity / temperature
    lead = (logits - log_sum(logits, weight).unsqueeze(1)).masked_fill(share <= 0, 0.0)
    loss = positive_mean(-F.logsigmoid(lead), share)
    return reduced(loss.masked_fill((weight == 0).all(1), 0.0), has_positive(positive), reduction)
