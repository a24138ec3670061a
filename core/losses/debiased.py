"""Debiased contrastive loss: some negatives are positives in disguise. Shape legend: N queries, M keys."""

import torch
from torch import Tensor

from ..check import number
from .arguments import Reduction, check_matrix, check_temperature, has_positive, positive_mean, reduced, split


def debiased(
    similarity: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    tau_plus: float = 0.1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return InfoNCE with the share of false negatives taken out of its negatives (Chuang et al. 2020, eq. 8).

        L_i = -1/|P_i| sum_p log( e^{s_ip} / (e^{s_ip} + W_i g_i) ),    W_i = sum_n w_in
        g_i = max( (sum_n w_in e^{s_in} / W_i - tau_plus mean_p e^{s_ip}) / (1 - tau_plus), e^{-1 / temperature} )

    with s = similarity / temperature. Negatives drawn at random are of the query's own class with probability
    tau_plus; the mean over true negatives is estimated from the means over all and over the positives.
    https://arxiv.org/abs/2007.00224

    The floor is the least that e^s can be for cosines. With tau_plus = 0 and one positive this is `info_nce`, as long
    as the mean negative is above the floor. Several positives share the estimate, and each is picked from itself and
    the negatives; soft ones weigh both means. A query without negatives has loss 0 and no gradient.

    Args:
        similarity: `(N, M)` floating, in the paper cosines; may hold -inf where a column must not count.
        positive: as for `info_nce`; a query without any is left out.
        weights: `(N, M)` floating >= 0, importance of each negative, in the mean and in the number W of them.
        temperature: > 0; a number or a scalar tensor, to which gradient flows.
        tau_plus: in [0, 1), probability that a negative is of the query's own class; 1 / classes where they are even.
        reduction: `mean` over the queries with a positive, their `sum`, or `none`: `(N,)` with 0 for the others.

    Returns:
        Scalar, or `(N,)`, of the similarity's dtype, in [0, inf).

    Raises:
        ValueError: tau_plus is not a number in [0, 1), or as for `info_nce`.
    """
    number("tau_plus", tau_plus, 0.0, 1.0, below=True)
    check_matrix(similarity, positive, weights)
    check_temperature(temperature)
    similarity, share, weight = split(similarity, positive, weights)
    logits = similarity / temperature
    absent = (share <= 0) & (weight == 0)
    top = logits.detach().masked_fill(absent, -torch.inf).amax(1, keepdim=True)  # every exponential below is <= 1
    logits = (logits - top).masked_fill(absent, 0.0)
    total = weight.sum(1)
    number_N = total.where(total > 0, 1.0)
    mean_negative = (weight * logits.exp()).sum(1) / number_N
    mean_true = (mean_negative - tau_plus * positive_mean(logits.exp(), share)) / (1 - tau_plus)
    log_floor = -1 / temperature - top.squeeze(1)
    below = mean_true <= log_floor.exp()
    log_mean = torch.where(below, log_floor, mean_true.masked_fill(below, 1.0).log())
    rivals = (log_mean + number_N.log()).unsqueeze(1) - logits
    loss = positive_mean(torch.logaddexp(rivals, torch.zeros_like(rivals)), share)
    return reduced(loss.masked_fill(total <= 0, 0.0), has_positive(positive), reduction)
