"""VICReg: pairs stay together, dimensions vary and do not repeat each other."""

from torch import Tensor, nn

from ..pairs import Outcome
from ..projected import HeadFactory
from .layouts import paired_rows
from .method import Branch, Method, ObjectiveFactory, projected


class VICReg(Method):
    """Bardes, Ponce and LeCun 2022, algorithm 1, https://arxiv.org/abs/2105.04906.

        z = expander(encoder(view));   `vicreg` of z1 and z2

    Variances and covariances are those of the full batch, of all processes.

    Deviation: batch norm in the networks has the statistics of its process, unless the trainer synchronises it.

    Args:
        encoder: with `out_features`.
        projection: `in_features -> module` with `out_features`; the paper's expander.
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
