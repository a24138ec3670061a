"""SigLIP: every pair is a yes or no question of its own. Shape legend: N queries, M keys."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..check import number
from .arguments import Reduction, check_matrix, check_scalar, check_temperature, has_positive, reduced, split


def sig_lip(
    similarity: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    bias: float | Tensor = -10.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return the sigmoid loss, summed over the pairs of a query and averaged over queries (Zhai et al. 2023, eq. 1).

        L_i = -sum_p log sigmoid(x_ip) - sum_n w_in log sigmoid(-x_in),    x = similarity / temperature + bias

    No sum over candidates stands inside a logarithm, so that pairs do not compete. The bias begins at -10 because
    nearly all pairs are negative; the paper learns it, see `SigLIP`, and begins with temperature 0.1.
    https://arxiv.org/abs/2303.15343

    A soft positive y asks for that probability: -y log sigmoid(x) - (1 - y) log sigmoid(-x). A query without negatives
    has the loss of its positives.

    Deviation: queries without any positive are left out, with all their pairs.

    Args:
        similarity: `(N, M)` floating, in the paper cosines; may hold -inf where a column must not count.
        positive: as for `info_nce`.
        weights: `(N, M)` floating >= 0, how much the term of each negative counts; 0 leaves it out. Positives' entries
            are ignored. None: 1 for all. Gradient flows into positive weights.
        temperature: > 0; a number or a scalar tensor, to which gradient flows.
        bias: any number or a scalar tensor, to which gradient flows.
        reduction: `mean` over the queries with a positive, their `sum`, or `none`: `(N,)` with 0 for the others.

    Returns:
        Scalar, or `(N,)`, of the similarity's dtype, in [0, inf).

    Raises:
        ValueError: bias is not a finite number or a floating scalar tensor, or as for `info_nce`.
    """
    check_scalar("bias", bias)
    check_matrix(similarity, positive, weights)
    check_temperature(temperature)
    similarity, share, weight = split(similarity, positive, weights)
    logits = similarity / temperature + bias
    against = torch.where(share > 0, 1 - share, weight)
    loss = -(share * F.logsigmoid(logits) + against * F.logsigmoid(-logits)).sum(1)
    return reduced(loss, has_positive(positive), reduction)


class SigLIP(nn.Module):
    """`sig_lip` with a learned bias.

    Args:
        bias: where it begins; the paper's -10 is about -log of the negatives for each positive in a large batch.

    Raises:
        ValueError: bias is not a finite number.
    """

    def __init__(self, bias: float = -10.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(number("bias", bias)))

    def forward(
        self,
        similarity: Tensor,
        positive: Tensor,
        weights: Tensor | None = None,
        temperature: float | Tensor = 0.1,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """Return `sig_lip` with the bias as it stands."""
        return sig_lip(similarity, positive, weights, temperature, self.bias, reduction)
