"""What samplers without memory share. Shape legend: N queries, M candidates."""

from collections.abc import Mapping

from torch import Tensor, nn

from ..masks import positive_mask
from .protocol import Candidates, Memory


class Weighting(nn.Module):
    """A sampler that only weighs the negatives it is given: a subclass says how, in `weigh`."""

    uniform = False
    temperature: float | None = None

    def memory(self) -> Memory | None:
        """Return None: nothing is remembered."""
        return None

    def forward(
        self, similarity: Tensor, positive: Tensor, exclude: Tensor | None, context: Mapping[str, Tensor]
    ) -> Candidates:
        """Return the positives as they are and the weights of `weigh`, 0 for whatever is no negative."""
        is_positive = positive_mask(positive, similarity.shape[1]) > 0
        negative = ~is_positive if exclude is None else ~(is_positive | exclude)
        weights = self.weigh(similarity, negative, is_positive, context).to(similarity.dtype)
        return Candidates(positive, weights.masked_fill(~negative, 0.0))

    def weigh(self, similarity: Tensor, negative: Tensor, is_positive: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Return `(N, M)` weights >= 0 of the columns that are `negative`; what stands at the others does not matter.

        A bool matrix keeps negatives (weight 1) or drops them (weight 0).
        """
        raise NotImplementedError

    def remember(self, key: Tensor, context: Mapping[str, Tensor]) -> None:
        """Remember nothing."""

    def metrics(self) -> dict[str, Tensor]:
        """Return nothing: there is no choice to report."""
        return {}
