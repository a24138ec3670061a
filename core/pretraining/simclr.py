"""SimCLR: two views of an example find each other among all views of the batch."""

import torch
from torch import Tensor, nn

from ..pairs import Outcome
from ..projected import HeadFactory
from .layouts import among_all_views
from .method import Branch, Method, ObjectiveFactory, projected


class SimCLR(Method):
    """Chen et al. 2020, algorithm 1, https://arxiv.org/abs/2002.05709.

        z = projection(encoder(view));   NT-Xent of the cosines of all 2 B views with each other

    Both views pass the encoder as one batch, as in the authors' code, so that batch norm sees them together. NT-Xent is
    `info_nce` in this layout, in which no view is its own candidate: the loss to take, since `nt_xent` itself and
    `max_margin` need as many queries as keys, and so a single process.

    Deviation: batch norm has the statistics of its process, unless the trainer synchronises it.

    Args:
        encoder: with `out_features`.
        projection: `in_features -> module` with `out_features`; g in the paper.
        objective: `dim -> Contrastive`.

    Raises:
        ValueError: as for the heads and the objective.
    """

    def __init__(self, encoder: nn.Module, *, projection: HeadFactory, objective: ObjectiveFactory) -> None:
        super().__init__()
        self.online, dim = projected(encoder, projection)
        self.objective = objective(dim)

    def branches(self, first: Tensor, second: Tensor) -> tuple[Branch, ...]:
        """Return one branch: both views, one after the other."""
        return ((self.online, torch.cat((first, second))),)

    def compare(self, *embeddings: Tensor, labels: Tensor | None = None) -> Outcome:
        """Return loss and metrics of `(2 B, D)` views."""
        (both,) = embeddings
        return self.objective(among_all_views(both, labels))
