"""Negatives weighted by how similar they are (HCL). Shape legend: N queries, M candidates."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..check import number, whole
from .weighting import Weighting


def hardness_weights(similarity: Tensor, negative: Tensor, beta: float | Tensor, temperature: float) -> Tensor:
    """Return `(N, M)` weights K e^{beta s_n / t} / sum_m e^{beta s_m / t} over each row's K negatives: their mean is 1.

    Robinson et al. 2021, eq. 4: negatives drawn from q_beta(n) ~ e^{beta s_n / t} p(n), as importances.
    """
    logits = (beta * (similarity / temperature)).masked_fill(~negative, -torch.inf)
    logits = logits.masked_fill(~negative.any(1, keepdim=True), 0.0)  # a row of -inf has no softmax
    return logits.softmax(1) * negative.sum(1, keepdim=True)


class Hardness(Weighting):
    """`w_n = K e^{beta s_n / t} / sum_m e^{beta s_m / t}`: all K negatives stay, similar ones weigh more.

    The weights of a row have mean 1. With beta = 0 all weigh 1; the larger beta, the more the hardest one stands for
    all (Robinson et al. 2021, HCL, eq. 4). https://arxiv.org/abs/2010.04592

    With `final`, beta moves in a straight line from `beta` in the first batch of training to `final` after `steps`
    batches, and stays there. The batches so far are in the `state_dict`.

    Deviation: no gradient flows through the weights, which say in what proportions negatives are drawn. The loss
    `hard_negative` lets it flow, as the authors' code does.

    Args:
        beta: >= 0, concentration; the paper: 0.5 to 2.
        temperature: > 0, t; give it the temperature of the loss.
        final: >= 0, where beta ends; None: it stays.
        steps: batches in training mode from beta to final, >= 1.

    Raises:
        ValueError: a number out of range.
    """

    done: Tensor

    def __init__(
        self, beta: float = 1.0, temperature: float = 0.1, final: float | None = None, steps: int = 10_000
    ) -> None:
        super().__init__()
        self.beta = number("beta of Hardness", beta, 0.0)
        self.divisor = number("temperature of Hardness", temperature, 0.0, above=True)
        self.final = self.beta if final is None else number("final of Hardness", final, 0.0)
        self.steps = whole("steps of Hardness", steps, 1)
        self.register_buffer("done", torch.zeros((), dtype=torch.long))

    def now(self) -> Tensor:
        """Return the beta of the current batch, as a scalar tensor."""
        part = (self.done / self.steps).clamp(max=1.0)
        return self.beta + (self.final - self.beta) * part

    def weigh(self, similarity: Tensor, negative: Tensor, is_positive: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Return `hardness_weights` at the beta of this batch, without gradient."""
        return hardness_weights(similarity.detach(), negative, self.now(), self.divisor)

    def remember(self, key: Tensor, context: Mapping[str, Tensor]) -> None:
        """Move beta one step on; only in training mode."""
        if self.training:
            self.done += 1

    def metrics(self) -> dict[str, Tensor]:
        """Return beta as `sampler/hardness`."""
        return {"sampler/hardness": self.now()}
