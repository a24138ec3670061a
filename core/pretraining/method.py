"""What the trainer asks of a pretraining method. Shape legend: B examples, D features."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from ..pairs import Outcome

Branch = tuple[Callable[[Tensor], Tensor], Tensor]
"""A function from inputs `(B, ...)` to embeddings `(B, D)`, a bound method of the method, and its input."""


class Method(nn.Module):
    """One algorithm: which network embeds which view, and how the embeddings are compared.

    A subclass has the attribute `encoder` (what is kept after pretraining) and two short functions, one below the
    other, which together are the paper's algorithm. They are two so that gradient caching can encode a batch
    larger than memory in chunks and compare it whole (`contraux.core.distributed.cached_backward`).
    """

    encoder: nn.Module

    def branches(self, first: Tensor, second: Tensor) -> tuple[Branch, ...]:
        """Return which function embeds which view, in the order in which `compare` takes the embeddings."""
        raise NotImplementedError

    def compare(self, *embeddings: Tensor, labels: Tensor | None = None) -> Outcome:
        """Return loss and metrics of the embeddings of one batch; the keys of all processes take part."""
        raise NotImplementedError

    def forward(self, first: Tensor, second: Tensor, labels: Tensor | None = None) -> Outcome:
        """Return loss and metrics of two views of a batch, with the labels of its examples where a method uses them."""
        return self.compare(*(embed(view) for embed, view in self.branches(first, second)), labels=labels)

    def update(self, progress: float) -> None:
        """Move what follows the weights without a gradient; called after each optimizer step.

        Args:
            progress: share of the training that is done, in [0, 1], for momentum on a schedule.
        """


class MethodFactory(Protocol):
    """What a YAML of `configs/method/` describes: `method(encoder) -> Method`."""

    def __call__(self, encoder: nn.Module) -> Method:
        """Return the method around this encoder, whose `out_features` its heads read."""
        ...
