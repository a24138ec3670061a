"""What a contrastive objective reports of itself. Shape legend: N queries, M keys."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses import info_nce
from .masks import positive_mask


@torch.no_grad()
def contrastive_metrics(
    similarity: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    info_nce_loss: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return detached scalars, as tensors, so that whoever logs them decides when to wait for the device.

    A candidate is a positive or a column of weight > 0; queries without a positive are left out.

    - `accuracy`: share of queries for which a positive is more similar than every negative; a tie is not correct, and
      a query without negatives is.
    - `mutual_information`: mean of log K - L in nats, with K the candidates of a query and L its InfoNCE loss with all
      candidates weighing 1, whatever the training loss was; at most log K. A lower bound of the mutual information of
      query and key where there is one positive and negatives are drawn independently (van den Oord et al. 2018, eq. 5).
    - `positive_similarity`, `negative_similarity`: means over all positives and over all negatives (0 if there is
      none), in the units of the similarity.

    Args:
        similarity: `(N, M)`, finite.
        positive: `(N,)` long, or `(N, M)` bool or floating.
        weights: `(N, M)` or None, as for the losses.
        temperature: of L.
        info_nce_loss: L, where the training loss was just that and need not be taken again.
    """
    if weights is None and positive.ndim == 1:
        if info_nce_loss is None:
            info_nce_loss = F.cross_entropy(similarity / temperature, positive)
        return _one_positive(similarity, positive, info_nce_loss)
    is_positive = positive_mask(positive, similarity.shape[1]) > 0
    is_negative = ~is_positive if weights is None else (weights > 0) & ~is_positive
    used_N = is_positive.any(1)
    best_N = similarity.masked_fill(~is_positive, -torch.inf).amax(1)
    rival_N = similarity.masked_fill(~is_negative, -torch.inf).amax(1)
    candidates_N = (is_positive | is_negative).sum(1)
    loss = info_nce(similarity, positive, is_negative.to(similarity.dtype), temperature)
    return {
        "accuracy": _mean(best_N > rival_N, used_N),
        "mutual_information": _mean(candidates_N.clamp(min=1).log(), used_N) - loss,
        "positive_similarity": _mean(similarity, is_positive),
        "negative_similarity": _mean(similarity, is_negative & used_N.unsqueeze(1)),
    }


def _one_positive(similarity: Tensor, positive: Tensor, loss: Tensor) -> dict[str, Tensor]:
    """Return the same with a third of the operations, for the usual case on the hot path of small RL batches."""
    n, m = similarity.shape
    column_N1 = positive.unsqueeze(1)
    best_N1 = similarity.gather(1, column_N1)
    rivals = similarity.scatter(1, column_N1, -torch.inf)
    best = best_N1.sum()
    return {
        "accuracy": (best_N1 > rivals.amax(1, keepdim=True)).to(similarity.dtype).mean(),
        "mutual_information": math.log(m) - loss,
        "positive_similarity": best / n,
        "negative_similarity": (similarity.sum() - best) / max(n * (m - 1), 1),
    }


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return values.float().masked_fill(~where, 0.0).sum() / where.sum().clamp(min=1)
