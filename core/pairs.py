"""The contract between hosts and objectives: read this first.

A *source* turns what its host trains on into :class:`Pairs`; an *objective* turns `Pairs` into an :class:`Outcome`;
a *seam* decides when both run and where the gradient of `Outcome.loss` goes.

Shape legend: N queries, M keys, D feature dimension.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor


class SameLabel(NamedTuple):
    """Positives by label, without a matrix: the keys of the query's own label.

    Attributes:
        query: `(N,)` long labels >= 0; a negative one has no label and so no positive.
        key: `(M,)` long labels likewise.
    """

    query: Tensor
    key: Tensor


class Pairs(NamedTuple):
    """What a host hands to an objective.

    Attributes:
        query: `(N, D)` floating features of the anchors; gradient flows.
        key: `(M, D)` floating features they are compared with.
        positive: `(N,)` long, the column of each query's positive; or `(N, M)` bool or soft weights in [0, 1]; or
            labels of queries and keys, of which equal ones are positives. Only the first and the last do without an
            `(N, M)` matrix for large batches.
        exclude: columns that are neither positive nor negative for a query: `(N,)` long, the one column that is the
            query itself; or `(N, M)` bool (itself, padding, cancelled false negatives); None excludes nothing. A
            positive given by its column counts all the same.
        context: tensors only some objectives use (labels, timesteps, actions, real/fake). Rows are aligned with `key`
            where the name begins with `key_`, otherwise with `query`.
    """

    query: Tensor
    key: Tensor
    positive: Tensor | SameLabel
    exclude: Tensor | None = None
    context: Mapping[str, Tensor] = {}


class Outcome(NamedTuple):
    """What an objective hands back.

    Attributes:
        loss: scalar, differentiable.
        metrics: detached scalars, kept as tensors so that reading them is the logger's choice and not a device
            synchronisation here. Contrastive objectives report `accuracy` (share of queries whose positive is the most
            similar candidate), `mutual_information` (lower bound, nats), `positive_similarity` and
            `negative_similarity`, and what their sampler reports of its choices under `sampler/`;
            `contraux.core.gradient.auxiliary_gradients` adds `gradient_norm`.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


class Objective(Protocol):
    """Heads, similarity, sampler and loss as one `torch.nn.Module`; it never sees a raw input."""

    def __call__(self, pairs: Pairs) -> Outcome:
        """Return loss and metrics for these pairs; in training mode a queue remembers the keys it saw."""
        ...

    def update(self) -> None:
        """Move what follows the weights without a gradient (momentum heads). Called once for each update."""
        ...
