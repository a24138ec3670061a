"""Negative cosine similarity of pairs (SimSiam, BYOL). Shape legend: N pairs, D feature dimension."""

from torch import Tensor

from ..similarity import full_precision, safe_norm
from .arguments import rows


def negative_cosine(query: Tensor, key: Tensor) -> Tensor:
    """Return minus the mean cosine of each query with its own key (Chen and He 2021, SimSiam, eq. 1).

        L = -1/N sum_i q_i . k_i / (|q_i| |k_i|)

    BYOL's loss (Grill et al. 2020, eq. 2), the squared distance of the normalised rows, is `2 + 2 L`: the same gradient
    twice as large. Both methods stop the gradient at the key and add the loss with the views exchanged; that is up to
    whoever calls. https://arxiv.org/abs/2011.10566, https://arxiv.org/abs/2006.07733

    Args:
        query: `(N, D)`, predictions.
        key: `(N, D)`, row i the target of query i. A zero vector has cosine 0 and receives no gradient.

    Returns:
        Scalar in [-1, 1], float32 (float64 for such rows) also under autocast.

    Raises:
        ValueError: the rows are not floating and of one shape with N, D >= 1.
    """
    query, key = rows("negative_cosine", 1, query, key)
    with full_precision(query):
        return -((query * key).sum(1) / (safe_norm(query) * safe_norm(key))).mean()
