"""Barlow Twins: the cross-correlation of two views towards the identity."""

from torch import Tensor, nn

from ..pairs import Outcome
from ..projected import HeadFactory
from .layouts import paired_rows
from .method import Branch, Method, ObjectiveFactory, projected


class BarlowTwins(Method):
    """Zbontar et al. 2021, algorithm 1, https://arxiv.org/abs/2103.03230.

        z = projection(encoder(view));   `barlow_twins` of z1 and z2

    Correlations are those of the full batch, of all processes.

    Deviations: columns are standardised with the statistics of the full batch, where the authors' code takes those of
    each process unless batch norm is synchronised; batch norm in the networks has the statistics of its process.

    Args:
        encoder: with `out_features`.
        projection: `in_features -> module` with `out_features`.
        objective: `dim -> NegativeFree`.

    Raises:
        ValueError: as for the heads and the objective.
    """

    def __init__(self, encoder: nn.Module, *, projection: HeadFactory, objective: ObjectiveFactory) -> None:
        super().__init__()
        self.online, dim = projected(encoder, projection)
        self.objective = objective(dim)

    def branches(self, first: Tensor, second: Tensor) -> tuple[Branch, ...]:
        """Return the projections of both views."""
        return (self.online, first), (self.online, second)

    def compare(self, *embeddings: Tensor, labels: Tensor | None = None) -> Outcome:
        """Return loss and metrics of `(B, D)` projections."""
        first, second = embeddings
        return self.objective(paired_rows(first, second))
