"""BYOL: predict what a momentum copy says of the other view."""

import torch
from torch import Tensor, nn

from ..encoders import MomentumEncoder
from ..encoders.momentum import cosine_momentum
from ..pairs import Outcome
from ..projected import HeadFactory
from .layouts import paired_rows
from .method import Branch, Method, ObjectiveFactory, predicted, projected


class BYOL(Method):
    """Grill et al. 2020, algorithm 1 and eq. 2, https://arxiv.org/abs/2006.07733.

        q = prediction(projection(encoder(view)))    z' = the momentum copy of projection and encoder
        minus the mean cosine of q1 with z'2 and of q2 with z'1

    The momentum rises to 1 along half a cosine (section 3.3). The copy's batch norm keeps running statistics of its
    own.

    Deviations: the paper's loss, squared distances of both directions added, is 4 + 4 times this one, a factor to which
    LARS and Adam are blind; batch norm has the statistics of its process, unless the trainer synchronises it.

    Args:
        encoder: with `out_features`.
        projection: `in_features -> module` with `out_features`; g in the paper.
        prediction: likewise, on top of it; it keeps the dimension; q in the paper.
        objective: `dim -> NegativeFree`.
        momentum: in [0, 1), at the beginning; tau_base in the paper.

    Raises:
        ValueError: a number out of range, or as for the heads and the objective.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        projection: HeadFactory,
        prediction: HeadFactory,
        objective: ObjectiveFactory,
        momentum: float = 0.996,
    ) -> None:
        super().__init__()
        self.online, dim = projected(encoder, projection)
        self.prediction = predicted(dim, prediction)
        self.target = MomentumEncoder(self.online, momentum, copy_buffers=False)
        self.objective = objective(dim)

    def branches(self, first: Tensor, second: Tensor) -> tuple[Branch, ...]:
        """Return projections and targets, of both views."""
        return (self.online, first), (self.online, second), (self.target, first), (self.target, second)

    def compare(self, *embeddings: Tensor, labels: Tensor | None = None) -> Outcome:
        """Return loss and metrics of `(B, D)` projections and targets."""
        first, second, target_first, target_second = embeddings
        query = torch.cat((self.prediction(first), self.prediction(second)))
        return self.objective(paired_rows(query, torch.cat((target_second, target_first)).detach()))

    def update(self, progress: float) -> None:
        """Move the copy one step, the slower the nearer the end."""
        super().update(progress)
        self.target.update(self.online, cosine_momentum(self.target.momentum, progress))
