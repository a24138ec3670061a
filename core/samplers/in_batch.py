"""The other keys of the batch as negatives. Shape legend: N queries, M keys."""

from collections.abc import Mapping

from torch import Tensor

from .protocol import Candidates
from .weighting import Weighting


class InBatch(Weighting):
    """Every other key is a negative of weight 1, except the excluded ones (weight 0)."""

    uniform = True

    def forward(
        self, similarity: Tensor, positive: Tensor, exclude: Tensor | None, context: Mapping[str, Tensor]
    ) -> Candidates:
        """Return weights `1 - exclude` in the similarity's dtype, or None when nothing is excluded."""
        return Candidates(positive, None if exclude is None else (~exclude).to(similarity.dtype))
