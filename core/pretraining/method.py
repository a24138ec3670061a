"""What the trainer asks of a pretraining method. Shape legend: B examples, D features."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from ..pairs import Objective, Outcome
from ..projected import HeadFactory

Branch = tuple[nn.Module, Tensor]
"""A module from inputs `(R, ...)` to embeddings `(R, D)`, and its input: a view of B rows, or both views, 2 B rows."""

ObjectiveFactory = Callable[[int], Any]
"""What the node `objective` of a method's YAML describes: `objective(dim) -> Contrastive` or `NegativeFree`."""


class Method(nn.Module):
    """One algorithm: which network embeds which view, and how the embeddings are compared.

    A subclass has two short functions, one below the other, which together are the paper's algorithm. They are two so
    that gradient caching can encode a batch larger than memory in chunks and compare it whole:

        functions, inputs = zip(*method.branches(first, second))
        compare = partial(method.compare, labels=labels)
        cached_backward(functions, [split_rows(one, rows) for one in inputs], compare)

    What embeds is a module of its own, without the objective: caching puts the buffers of what it encodes again back
    to where they were, and a queue among them would forget. Processes must hold the same number of rows, B each.

    Attributes:
        online: the network that is trained by gradient, `encoder` and then `projection`.
        objective: heads, similarity, sampler and loss of the comparison.
        local_batch_norm: whether batch norm must keep the statistics of its own process, unsynchronised, because the
            method rests on queries and keys being normalised apart (MoCo).
        needs_labels: whether it makes no sense without labels (SupCon).
    """

    online: nn.Sequential
    objective: Objective
    local_batch_norm: bool = False
    needs_labels: bool = False

    @property
    def encoder(self) -> nn.Module:
        """What is kept after pretraining."""
        return self.online.get_submodule("encoder")

    def branches(self, first: Tensor, second: Tensor) -> tuple[Branch, ...]:
        """Return which module embeds which view, in the order in which `compare` takes the embeddings."""
        raise NotImplementedError

    def compare(self, *embeddings: Tensor, labels: Tensor | None = None) -> Outcome:
        """Return loss and metrics of the embeddings of one batch; the keys of all processes take part.

        The mean of the loss over processes is the full batch's; metrics are of this process's queries.
        """
        raise NotImplementedError

    def forward(self, first: Tensor, second: Tensor, labels: Tensor | None = None) -> Outcome:
        """Return loss and metrics of two views of a batch, with the labels of its examples where a method uses them.

        Args:
            first: `(B, ...)`.
            second: likewise, row i another view of the same example.
            labels: `(B,)` long, -1 where unknown. Labels of several columns `(B, L)` are of no use here and not read.
        """
        return self.compare(*(embed(view) for embed, view in self.branches(first, second)), labels=labels)

    def update(self, progress: float) -> None:
        """Move what follows the weights without a gradient; called after each optimizer step.

        Args:
            progress: share of the training that is done, in [0, 1], for momentum on a schedule.
        """
        self.objective.update()


class MethodFactory(Protocol):
    """What a YAML of `configs/method/` describes: `method(encoder) -> Method`."""

    def __call__(self, encoder: nn.Module) -> Method:
        """Return the method around this encoder, whose `out_features` its heads read."""
        ...


def projected(encoder: nn.Module, projection: HeadFactory) -> tuple[nn.Sequential, int]:
    """Return encoder and projection head as one network, with children of these names, and its output dimension.

    Raises:
        ValueError: the encoder or the head has no integer `out_features`.
    """
    head = projection(_out_features("an encoder", encoder))
    return nn.Sequential(OrderedDict(encoder=encoder, projection=head)), _out_features("a projection", head)


def predicted(dim: int, prediction: HeadFactory) -> nn.Module:
    """Return the prediction head of projections of this dimension.

    Raises:
        ValueError: the head puts out another dimension.
    """
    head = prediction(dim)
    found = _out_features("a prediction", head)
    if found != dim:
        raise ValueError(f"prediction must keep the dimension {dim} of the projections, got {found}")
    return head


def _out_features(name: str, module: nn.Module) -> int:
    found = getattr(module, "out_features", None)
    if not isinstance(found, int):
        raise ValueError(f"{name} must have an integer `out_features`, got {type(module).__name__} with {found!r}")
    return found
