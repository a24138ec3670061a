"""What an objective asks of a sampler. Shape legend: N queries, M keys of the batch, Q remembered ones, D dimension."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor


class Memory(NamedTuple):
    """Keys of earlier batches, to compare with after the batch's own.

    Attributes:
        key: `(Q, D)`, without gradient.
        context: what else is known of them, by the names of `Pairs.context` (`key_label`); rows aligned with `key`.
    """

    key: Tensor
    context: Mapping[str, Tensor]


class Candidates(NamedTuple):
    """Who is positive and how much each negative weighs, as a loss takes it.

    Attributes:
        positive: `(N,)` long, or `(N, M + Q)` bool or soft weights in [0, 1].
        weights: `(N, M + Q)` floating >= 0 of the negatives, or None when all weigh 1 and none is excluded. What stands
            at a positive does not matter.
    """

    positive: Tensor
    weights: Tensor | None


class Sampler(Protocol):
    """Decides which keys a query is compared with and how much each negative weighs; a `torch.nn.Module`.

    A call may be about a block of the queries only (large batches are taken in blocks of rows), so that what it returns
    for a query depends on that query's row alone; what belongs to the batch as a whole happens in `remember`, which is
    called once for each batch.
    """

    uniform: bool
    """Whether positives stay as they are and weights are None, whatever the similarity, as long as nothing is
    excluded: faster losses apply."""

    temperature: float | None
    """The temperature it chose for the loss; None leaves the objective's own."""

    def memory(self) -> Memory | None:
        """Return the keys remembered from earlier batches, or None if there are none."""
        ...

    def __call__(
        self, similarity: Tensor, positive: Tensor, exclude: Tensor | None, context: Mapping[str, Tensor]
    ) -> Candidates:
        """Return positives and weights.

        Args:
            similarity: `(N, M + Q)`, the batch's own keys first.
            positive: `(N,)` long, or `(N, M + Q)` bool or floating.
            exclude: `(N, M + Q)` bool or None.
            context: of `Pairs`; entries named `key_...` have M + Q rows, the others N.
        """
        ...

    def remember(self, key: Tensor, context: Mapping[str, Tensor]) -> None:
        """Take notice of the batch's `(M, D)` keys after the similarity was taken: the batch is over."""
        ...

    def metrics(self) -> dict[str, Tensor]:
        """Return what it chose and why as detached scalars; empty where there is nothing to choose."""
        ...
