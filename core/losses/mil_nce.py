"""MIL-NCE: it is enough to find the positives together. Shape legend: N queries, M keys."""

from torch import Tensor

from .arguments import Reduction, has_positive, reduced
from .info_nce import info_nce
from .sup_con import sup_con


def mil_nce(
    similarity: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return the mean over queries of the cross-entropy of picking any positive (Miech et al. 2020).

        L_i = -log( sum_{p in P_i} e^{s_ip} / (sum_{p in P_i} e^{s_ip} + sum_{n not in P_i} w_in e^{s_in}) )

    with s = similarity / temperature. https://arxiv.org/abs/1912.06430. It is `sup_con(form="in")` less log |P_i|, with
    the same gradient, so that it lies in [0, inf) and is 0 without negatives.

    With the proxy of an example's class and the other examples of the class as positives, and the examples of other
    classes as negatives, it is the conditional contrastive loss 2C (Kang and Park 2020, ContraGAN,
    https://arxiv.org/abs/2006.12681).

    Soft positives weigh the sum in the numerator relative to each other, so that equal ones are a mask, and count as 1
    in the denominator.

    Args:
        similarity: `(N, M)` floating; may hold -inf where a column must not count.
        positive: as for `info_nce`; a query without any is left out.
        weights: as for `info_nce`.
        temperature: > 0; a number or a scalar tensor, to which gradient flows. 1 in both papers.
        reduction: `mean` over the queries with a positive, their `sum`, or `none`: `(N,)` with 0 for the others.

    Returns:
        Scalar, or `(N,)`, of the similarity's dtype.

    Raises:
        ValueError: as for `info_nce`.
    """
    if positive.ndim == 1:
        return info_nce(similarity, positive, weights, temperature, reduction)
    loss = sup_con(similarity, positive, weights, temperature, "in", "none")
    count = (positive > 0).sum(1).clamp(min=1).to(loss.dtype)
    return reduced(loss - count.log(), has_positive(positive), reduction)
