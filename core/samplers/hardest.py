"""The most similar negatives only. Shape legend: N queries, M candidates."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..check import whole
from .weighting import Weighting


def hardest(similarity: Tensor, negative: Tensor, k: int) -> Tensor:
    """Return `(N, M)` bool: the k most similar of each row's negatives, or all of them where there are at most k.

    Of equal ones at the edge those in the first columns are taken, on every device.
    """
    values = similarity.detach().masked_fill(~negative, -torch.inf)
    edge_N1 = values.topk(min(k, values.shape[1]), dim=1, sorted=True).values[:, -1:]
    above = values > edge_N1
    level = (values == edge_N1) & negative
    room_N1 = k - above.sum(1, keepdim=True)
    return above | (level & (level.cumsum(1) <= room_N1))


class Hardest(Weighting):
    """The k most similar negatives of each query weigh 1, the others 0 (top-k or hard negative mining).

    A query with at most k negatives keeps all. Ties at the edge go to the first columns.

    Mining from the first step on can collapse the encoder, and the hardest negatives are the likeliest to be false
    ones; `Bandit` and `Bayesian` begin uniformly, `Chain([CancelByLabel(), Hardest(k)])` cancels first.

    Args:
        k: negatives kept for each query, >= 1.

    Raises:
        ValueError: k is not a whole number >= 1.
    """

    def __init__(self, k: int = 16) -> None:
        super().__init__()
        self.k = whole("k of Hardest", k, 1)

    def weigh(self, similarity: Tensor, negative: Tensor, is_positive: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Return `hardest` of the negatives."""
        return hardest(similarity, negative, self.k)
