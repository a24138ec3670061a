"""CLIP: InfoNCE in both directions. Shape legend: N queries, M keys."""

from torch import Tensor

from ..masks import positive_mask
from .arguments import check_matrix
from .info_nce import info_nce


def clip(
    similarity: Tensor, positive: Tensor, weights: Tensor | None = None, temperature: float | Tensor = 0.1
) -> Tensor:
    """Return half of picking the key of each query plus half of picking the query of each key.

        L = 1/2 info_nce(s, P, w) + 1/2 info_nce(s^T, P^T, w^T)

    (Radford et al. 2021, figure 3; Zhang et al. 2020, ConVIRT, eq. 2-4.) https://arxiv.org/abs/2103.00020

    The second half is a mean over the keys that are somebody's positive. A key that is nobody's, such as one from a
    queue, is a negative in the first half and takes no part in the second. Several queries may share a key, which then
    has several positives. Where N = M and nothing is shared, this is the paper's loss.

    A row (column) whose only candidates are its positives contributes what `info_nce` says: 0 if there is one. The loss
    of a column depends on all rows, so that there is no `reduction`.

    Args:
        similarity: `(N, M)` floating; may hold -inf where a pair must not count.
        positive: as for `info_nce`. Soft weights are taken relative to their row in the first half and to their column
            in the second.
        weights: as for `info_nce`, one for each pair, whichever of the two asks.
        temperature: > 0; a number or a scalar tensor, to which gradient flows.

    Returns:
        Scalar of the similarity's dtype.

    Raises:
        ValueError: as for `info_nce`.
    """
    check_matrix(similarity, positive, weights)
    by_query = info_nce(similarity, positive, weights, temperature)
    by_key = positive_mask(positive, similarity.shape[1]).T
    back = info_nce(similarity.T, by_key, None if weights is None else weights.T, temperature)
    return (by_query + back) / 2
