"""The most similar negatives taken for false ones. Shape legend: N queries, M candidates."""

from collections.abc import Mapping

from torch import Tensor

from ..check import whole
from ..masks import positive_mask
from .hardest import hardest
from .protocol import Candidates
from .weighting import Weighting


class CancelTopK(Weighting):
    """The k negatives most similar to the query are taken for false ones and cancelled (Huynh et al. 2022, FNC).

    Elimination (`attract=False`) gives them weight 0. Attraction (`attract=True`) makes them positives instead, each as
    good as the given one; InfoNCE then is the mean over all of them.
    https://arxiv.org/abs/2011.11765

    Deviations: the paper finds them by further views of the query (a support set), here the similarity itself says so,
    at no cost and less reliably; and it has all other candidates in the denominator of each positive, `info_nce` all
    other positives and the negatives, which is the same.

    A query with at most k negatives keeps none. At the beginning of training the most similar ones are nearly random;
    and where hardly any negative is false, this drops the most useful ones.

    Args:
        k: negatives taken for false for each query, >= 1.
        attract: make them positives.

    Raises:
        ValueError: k is not a whole number >= 1.
    """

    def __init__(self, k: int = 4, attract: bool = False) -> None:
        super().__init__()
        self.k = whole("k of CancelTopK", k, 1)
        self.attract = attract

    def forward(
        self, similarity: Tensor, positive: Tensor, exclude: Tensor | None, context: Mapping[str, Tensor]
    ) -> Candidates:
        """Return weights, and with `attract` positives as `(N, M)` bool, or soft ones in which the new ones are 1."""
        found = super().forward(similarity, positive, exclude, context)
        if not self.attract:
            return found
        given = positive_mask(positive, similarity.shape[1])
        cancelled = (found.weights == 0) & (given <= 0)
        if exclude is not None:
            cancelled = cancelled & ~exclude
        return Candidates(given.masked_fill(cancelled, 1), found.weights)

    def weigh(self, similarity: Tensor, negative: Tensor, is_positive: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Return all but the k most similar."""
        return ~hardest(similarity, negative, self.k)
