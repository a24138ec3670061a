"""SupCon: several positives, by label. Shape legend: N queries, M keys."""

from typing import Literal

from torch import Tensor

from ..check import choice
from .arguments import Reduction, check_matrix, check_temperature, has_positive, log_sum, reduced, split
from .info_nce import info_nce


def sup_con(
    similarity: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    form: Literal["out", "in"] = "out",
    reduction: Reduction = "mean",
) -> Tensor:
    """Return the supervised contrastive loss, a mean over queries (Khosla et al. 2020, eq. 2 and 3).

        out: L_i = -1/|P_i| sum_{p in P_i} log( e^{s_ip} / Z_i )
        in:  L_i = -log( 1/|P_i| sum_{p in P_i} e^{s_ip} / Z_i )
        Z_i = sum_{p in P_i} e^{s_ip} + sum_{n not in P_i} w_in e^{s_in},    s = similarity / temperature

    "out" is `info_nce`, which the paper prefers: "in" <= "out" by Jensen's inequality, equal for one positive, and its
    gradient dwells on positives that are alike already. https://arxiv.org/abs/2004.11362

    The paper's anchor is neither its own positive nor in Z_i: leave it out of `positive` and give it weight 0.

    Deviations: the mean over queries where the paper sums; soft positives weigh the means over P_i, and count as 1 in
    Z_i.

    Args:
        similarity: `(N, M)` floating; may hold -inf where a column must not count.
        positive: as for `info_nce`; a query without any is left out.
        weights: as for `info_nce`.
        temperature: > 0; a number or a scalar tensor, to which gradient flows. The paper trains with 0.1.
        form: `out` or `in`: whether the mean over the positives is outside or inside the logarithm.
        reduction: `mean` over the queries with a positive, their `sum`, or `none`: `(N,)` with 0 for the others.

    Returns:
        Scalar, or `(N,)`, of the similarity's dtype. A query without negatives gives the formula's value: log |P_i| for
        positives that are equally alike in either form.

    Raises:
        ValueError: another form, or as for `info_nce`.
    """
    choice("form", form, ("out", "in"))
    if form == "out":
        return info_nce(similarity, positive, weights, temperature, reduction)
    check_matrix(similarity, positive, weights)
    check_temperature(temperature)
    similarity, share, weight = split(similarity, positive, weights)
    logits = similarity / temperature
    total = share.sum(1)
    candidates = log_sum(logits, weight + (share > 0))
    loss = candidates - log_sum(logits, share) + total.where(total > 0, 1.0).log()
    return reduced(loss, has_positive(positive), reduction)
