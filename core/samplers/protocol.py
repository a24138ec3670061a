"""What an objective asks of a sampler. Shape legend: N queries, M keys of the batch, Q remembered ones, D dimension."""

from typing import Protocol

from torch import Tensor


class Sampler(Protocol):
    """Decides which keys a query is compared with and how much each negative weighs; a `torch.nn.Module`."""

    uniform: bool
    """Whether the weights are None, whatever the similarity, as long as nothing is excluded: faster losses apply."""

    def columns(self, key_MD: Tensor) -> Tensor:
        """Return the `(M + Q, D)` keys to compare with; the batch's own come first, in order."""
        ...

    def __call__(self, similarity: Tensor, positive: Tensor, exclude: Tensor | None) -> Tensor | None:
        """Return `(N, M + Q)` floating weights >= 0 of the negatives, or None when all weigh 1 and none is excluded.

        What stands at a positive does not matter. `positive` and `exclude` have been widened to M + Q columns.
        """
        ...

    def remember(self, key_MD: Tensor) -> None:
        """Take notice of the batch's keys, after the similarity was taken."""
        ...
