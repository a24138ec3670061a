"""The debiased estimator as weights. Shape legend: N queries, M candidates."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..check import number
from .weighting import Weighting


def debiasing(similarity: Tensor, negative: Tensor, is_positive: Tensor, tau_plus: float, temperature: float) -> Tensor:
    """Return the `(N, 1)` factor that turns each row's sum over negatives into K g (Chuang et al. 2020, eq. 7 and 8).

        sum_n e^{s_n / t} -> K g,    g = max( (mean_n e^{s_n / t} - tau_plus mean_p e^{s_p / t}) / (1 - tau_plus),
                                               e^{-1 / t} )

    Without negatives or without positives the factor is 1.
    """
    logits = similarity / temperature
    log_negative, log_positive = _log_mean(logits, negative), _log_mean(logits, is_positive)
    floor = -1 / temperature - log_negative
    # With r = mean_p / mean_n the estimate is (1 - tau_plus r) / (1 - tau_plus). It is taken only where it is above the
    # floor, and r never overflows there, since tau_plus r < 1.
    log_ratio = log_positive - log_negative
    found = (1 - tau_plus * log_ratio.detach().exp()) / (1 - tau_plus)
    below = found <= floor.detach().exp()
    estimate = (1 - tau_plus * log_ratio.masked_fill(below, 0.0).exp()) / (1 - tau_plus)
    factor = torch.where(below, floor.masked_fill(~below, 0.0).exp(), estimate)
    either = negative.any(1, keepdim=True) & is_positive.any(1, keepdim=True)
    return factor.clamp(min=torch.finfo(factor.dtype).tiny).masked_fill(~either, 1.0)


class Debiased(Weighting):
    """All negatives of a query weigh the same: what takes the expected share of false ones out of their sum.

    Negatives drawn at random are of the query's own class with probability tau_plus. The sum over true ones is
    estimated from the sum over all and the positives, and bounded below (`debiasing`; Chuang et al. 2020, eq. 7
    and 8). InfoNCE with these weights is the loss `debiased`, value and gradient: the gradient flows through the
    weights, since the estimate depends on the similarities. https://arxiv.org/abs/2007.00224

    The floor e^{-1/t} is the least that e^{s/t} can be for cosines; use it with those. With distances it can be so far
    above every exponential that the weights overflow. In a `Chain` after weights
    that are neither 0 nor 1, the estimate is still that of an unweighted sum.

    Args:
        tau_plus: in [0, 1), probability that a negative is of the query's own class; 1 / classes where they are even.
        temperature: > 0, t; give it the temperature of the loss.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(self, tau_plus: float = 0.1, temperature: float = 0.1) -> None:
        super().__init__()
        self.tau_plus = number("tau_plus of Debiased", tau_plus, 0.0, 1.0, below=True)
        self.divisor = number("temperature of Debiased", temperature, 0.0, above=True)

    def weigh(self, similarity: Tensor, negative: Tensor, is_positive: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Return the factor of each query at all its columns, with gradient."""
        return debiasing(similarity, negative, is_positive, self.tau_plus, self.divisor).expand_as(similarity)


def _log_mean(logits: Tensor, where: Tensor) -> Tensor:
    """Return `(N, 1)` log of the mean of e^{x} over the columns `where`; 0 for a row without any."""
    some = where.any(1, keepdim=True)
    kept = logits.masked_fill(~where, -torch.inf).masked_fill(~some, 0.0)
    count = where.sum(1, keepdim=True).clamp(min=1)
    return (torch.logsumexp(kept, 1, keepdim=True) - count.to(logits.dtype).log()).masked_fill(~some, 0.0)
