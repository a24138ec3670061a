"""InfoNCE in which a positive pulls only as hard as it is trusted. Shape legend: N queries, M keys."""

import torch.nn.functional as F
from torch import Tensor

from .arguments import Reduction, check_matrix, check_temperature, has_positive, log_weights, reduced, scaled
from .info_nce import info_nce


def graded_info_nce(
    similarity: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return InfoNCE whose soft positives scale the loss, where in `info_nce` they only share it out.

        L_i = -1/|P_i| sum_{p in P_i} g_ip log( e^{s_ip} / Z_i )
        Z_i = sum_{p in P_i} e^{s_ip} + sum_{n not in P_i} w_in e^{s_in},    s = similarity / temperature

    with the grades g in (0, 1] of the positives P_i = {p: g_ip > 0}. A query whose one positive has grade 1/2 has half
    the loss and half the gradient; in `info_nce` it would have all of it. Grades of 1 make it `info_nce`. Time-InfoNCE
    grades a pair of noise levels by the signal that is left in the noisier one.

    Args:
        similarity: `(N, M)` floating; may hold -inf where a column must not count.
        positive: `(N, M)` floating grades in [0, 1]; or bool, or `(N,)` long, which are grades of 1.
        weights: as for `info_nce`.
        temperature: > 0; a number or a scalar tensor, to which gradient flows.
        reduction: `mean` over the queries with a positive, whatever its grade, their `sum`, or `none`: `(N,)` with 0
            for the others.

    Returns:
        Scalar, or `(N,)`, of the similarity's dtype; 0 where no query has a positive.

    Raises:
        ValueError: as for `info_nce`.
    """
    if not positive.is_floating_point():
        return info_nce(similarity, positive, weights, temperature, reduction)
    check_matrix(similarity, positive, weights)
    check_temperature(temperature)
    logits = scaled(similarity, temperature)
    if weights is not None:
        logits = logits + log_weights(weights, positive).to(logits.dtype)
    used_N = has_positive(positive)
    assert used_N is not None  # a matrix says who has one
    logits = logits.masked_fill(~used_N.unsqueeze(1), 0.0)  # a row of -inf has a gradient of NaN
    grade = positive.to(logits.dtype)
    picked = F.log_softmax(logits, dim=1).masked_fill(grade <= 0, 0.0)  # a -inf times 0 would be NaN
    loss_N = -(picked * grade).sum(1) / (grade > 0).sum(1).clamp(min=1)
    return reduced(loss_N, used_N, reduction)
