"""Hard negatives by reweighting (HCL). Shape legend: N queries, M keys."""

import torch
from torch import Tensor, nn

from ..check import number, whole
from .arguments import Reduction, check_matrix, check_scalar, check_temperature, split
from .debiased import debiased


def hard_negative(
    similarity: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    beta: float | Tensor = 1.0,
    tau_plus: float = 0.1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return `debiased` with negatives the more important, the more alike they are (Robinson et al. 2021, eq. 4 and 5).

        importance of n:  W_i w_in e^{beta s_in} / sum_m w_im e^{beta s_im},    W_i = sum_n w_in

    with s = similarity / temperature. Importances keep the sum W_i; gradient flows through them, as in the authors'
    code. With beta = 0 it is `debiased`, and the larger beta, the more the hardest negative stands for all.
    https://arxiv.org/abs/2010.04592

    Args:
        similarity: as for `debiased`.
        positive: as for `debiased`.
        weights: as for `debiased`; the hardness comes on top.
        temperature: > 0; a number or a scalar tensor, to which gradient flows.
        beta: >= 0, concentration; a number or a scalar tensor. The paper: 0.5 to 2, annealed or not.
        tau_plus: in [0, 1), as for `debiased`.
        reduction: as for `debiased`.

    Returns:
        Scalar, or `(N,)`, of the similarity's dtype, in [0, inf).

    Raises:
        ValueError: beta is not a number >= 0, or as for `debiased`.
    """
    check_scalar("beta", beta, 0.0)
    check_matrix(similarity, positive, weights)
    check_temperature(temperature)
    values, _, weight = split(similarity, positive, weights)
    counts = weight != 0
    hardness = (beta * (values / temperature) + weight.where(counts, 1.0).log()).masked_fill(~counts, -torch.inf)
    hardness = hardness.masked_fill(~counts.any(1, keepdim=True), 0.0).softmax(1)
    return debiased(similarity, positive, weight.sum(1, keepdim=True) * hardness, temperature, tau_plus, reduction)


class HardNegative(nn.Module):
    """`hard_negative` whose beta moves in a straight line from one `update` to the next.

    The first loss uses `beta`, the one after `steps` updates and all later ones `final`. An objective calls `update`
    once for each of its own. The updates done are in the `state_dict`.

    Args:
        beta: >= 0, at the beginning.
        final: >= 0, at the end.
        steps: updates from the one to the other, >= 1.
        tau_plus: in [0, 1), as for `debiased`.

    Raises:
        ValueError: a number out of range.
    """

    done: Tensor

    def __init__(self, beta: float = 1.0, final: float = 0.0, steps: int = 10_000, tau_plus: float = 0.1) -> None:
        super().__init__()
        self.beta = number("beta", beta, 0.0)
        self.final = number("final", final, 0.0)
        self.steps = whole("steps", steps, 1)
        self.tau_plus = number("tau_plus", tau_plus, 0.0, 1.0, below=True)
        self.register_buffer("done", torch.zeros((), dtype=torch.long))

    def forward(
        self,
        similarity: Tensor,
        positive: Tensor,
        weights: Tensor | None = None,
        temperature: float | Tensor = 0.1,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """Return `hard_negative` with the beta of this step."""
        part = (self.done / self.steps).clamp(max=1.0)
        beta = torch.lerp(torch.full_like(part, self.beta), torch.full_like(part, self.final), part)
        return hard_negative(similarity, positive, weights, temperature, beta, self.tau_plus, reduction)

    def update(self) -> None:
        """Take one step from `beta` towards `final`."""
        self.done += 1
