"""SimSiam: predict the projection of the other view, which gets no gradient."""

import torch
from torch import Tensor, nn

from ..pairs import Outcome
from ..projected import HeadFactory
from .layouts import paired_rows
from .method import Branch, Method, ObjectiveFactory, predicted, projected


class SimSiam(Method):
    """Chen and He 2021, algorithm 1, https://arxiv.org/abs/2011.10566.

        z = projection(encoder(view))    p = prediction(z)
        D(p1, stop z2) / 2 + D(p2, stop z1) / 2    with D minus the mean cosine

    Watch the metric `spread`: 0 where all rows have collapsed onto one (section 4.1). The paper's optimizer keeps the
    learning rate of the prediction head constant; that is up to the trainer.

    Deviation: batch norm has the statistics of its process, unless the trainer synchronises it.

    Args:
        encoder: with `out_features`.
        projection: `in_features -> module` with `out_features`.
        prediction: likewise, on top of it; it keeps the dimension; h in the paper.
        objective: `dim -> NegativeFree`.

    Raises:
        ValueError: as for the heads and the objective.
    """

    def __init__(
        self, encoder: nn.Module, *, projection: HeadFactory, prediction: HeadFactory, objective: ObjectiveFactory
    ) -> None:
        super().__init__()
        self.online, dim = projected(encoder, projection)
        self.prediction = predicted(dim, prediction)
        self.objective = objective(dim)

    def branches(self, first: Tensor, second: Tensor) -> tuple[Branch, ...]:
        """Return the projections of both views."""
        return (self.online, first), (self.online, second)

    def compare(self, *embeddings: Tensor, labels: Tensor | None = None) -> Outcome:
        """Return loss and metrics of `(B, D)` projections."""
        first, second = embeddings
        query = torch.cat((self.prediction(first), self.prediction(second)))
        return self.objective(paired_rows(query, torch.cat((second, first)).detach()))
