"""SupCon: all views of a label are positives of each other."""

import torch
from torch import Tensor, nn

from ..check import shape
from ..distributed.processes import rank_and_size
from ..pairs import Outcome, SameLabel
from ..projected import HeadFactory
from .layouts import among_all_views
from .method import Branch, Method, ObjectiveFactory, projected


class SupCon(Method):
    """Khosla et al. 2020, section 3.2 and eq. 2, https://arxiv.org/abs/2004.11362.

        z = projection(encoder(view));   positives of a view: the other views of its label, in the whole batch

    An example without label (-1) has its own other view as its only positive, so that a batch without any is
    SimCLR's; the trainer refuses data without classes.

    Deviations: the loss is a mean over views where the paper sums; it is not multiplied by the temperature, as it is in
    the authors' code.

    Args:
        encoder: with `out_features`.
        projection: `in_features -> module` with `out_features`; Proj in the paper.
        objective: `dim -> Contrastive`, with a loss that takes several positives.

    Raises:
        ValueError: as for the heads and the objective.
    """

    needs_labels = True

    def __init__(self, encoder: nn.Module, *, projection: HeadFactory, objective: ObjectiveFactory) -> None:
        super().__init__()
        self.online, dim = projected(encoder, projection)
        self.objective = objective(dim)

    def branches(self, first: Tensor, second: Tensor) -> tuple[Branch, ...]:
        """Return one branch: both views, one after the other."""
        return ((self.online, torch.cat((first, second))),)

    def compare(self, *embeddings: Tensor, labels: Tensor | None = None) -> Outcome:
        """Return loss and metrics of `(2 B, D)` views.

        Raises:
            ValueError: there is not one label for each example.
        """
        (both,) = embeddings
        if labels is None or labels.shape != (len(both) // 2,):
            found = "none" if labels is None else shape(labels)
            raise ValueError(f"supcon needs one label for each example, ({len(both) // 2},), got {found}")
        pairs = among_all_views(both, _own_where_unknown(labels))
        return self.objective(pairs._replace(positive=SameLabel(pairs.context["label"], pairs.context["key_label"])))


def _own_where_unknown(labels: Tensor) -> Tensor:
    """Return labels in which each unknown one is a number that nobody else has, on no process and in no batch.

    Random ones from 2^32 on: a queue remembers labels, and a counter would have to be saved.
    """
    rank, size = rank_and_size()
    mine = torch.randint(2**32, 2**50, labels.shape, device=labels.device) * size + rank
    return torch.where(labels < 0, mine, labels)
