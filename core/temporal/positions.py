"""InfoNCE at every position of a feature map at once.

Shape legend: L positions, N windows, C channels, B positions of a block.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..check import shape
from ..kernels.node import with_gradient
from ..losses import info_nce
from ..metrics import contrastive_metrics
from ..similarity import full_dtype, full_precision

WHOLE = 2**22  # up to so many scores over all positions are held at once, 16 MiB in float32
CELLS = 2**20  # scores of a block of positions above


def local_info_nce(query: Tensor, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean over positions of InfoNCE among the windows, and the metrics of `contrastive_metrics`.

        L = 1/(L N) sum_l sum_n -log( e^{q_ln . k_ln} / sum_m e^{q_ln . k_lm} )

    so that a window's negatives are the other windows at the same position. All positions go through one batched
    product, or above 2^22 scores through blocks of positions that take their gradient along and leave nothing behind
    but it; a block holds one position at least.

    Args:
        query: `(L, N, C)`, or `(N, C)` for the same vectors at every position.
        key: `(L, N, C)`.

    Returns:
        The scalar loss, and means over all positions; float32 also for half precision and under autocast.

    Raises:
        ValueError: the shapes are not these.
    """
    if key.ndim != 3 or query.shape not in (key.shape, key.shape[1:]):
        raise ValueError(f"query must be (L, N, C) or (N, C) for keys (L, N, C), got {shape(query)} and {shape(key)}")
    with full_precision(query):
        dtype = full_dtype(query, key)
        query, key = query.to(dtype), key.to(dtype)
        positions, n, _ = key.shape
        if positions * n * n > WHOLE:
            return _in_blocks(query, key, max(1, CELLS // n**2))
        scores, positive = _scores(query, key)
        loss = info_nce(scores, positive, temperature=1.0)
        return loss, contrastive_metrics(scores.detach(), positive, None, 1.0, loss.detach())


def _scores(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Return all scores as rows, `(L N, N)`, and the column of each row's positive."""
    positions, n, _ = key.shape
    scores = query @ key.transpose(1, 2)
    return scores.flatten(0, 1), torch.arange(n, device=key.device).repeat(positions)


def _in_blocks(query: Tensor, key: Tensor, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    positions, n, _ = key.shape
    sums: dict[str, Tensor] = {}

    def compute(needs: Sequence[bool]) -> tuple[Tensor, list[Tensor | None]]:
        whole = (query.detach(), key.detach())
        gradients = [torch.zeros_like(x) if need else None for x, need in zip(whole, needs, strict=True)]
        total = key.new_zeros(())
        for start in range(0, positions, size):
            rows = slice(start, min(start + size, positions))
            places = [rows if x.ndim == 3 else slice(None) for x in whole]  # an (N, C) query is in every block
            parts = [x[place].requires_grad_(need) for x, place, need in zip(whole, places, needs, strict=True)]
            with torch.set_grad_enabled(any(needs)):
                scores, positive = _scores(*parts)
                loss = info_nce(scores, positive, temperature=1.0, reduction="sum")
            wanted = [part for part, need in zip(parts, needs, strict=True) if need]
            found = iter(torch.autograd.grad(loss, wanted) if wanted else ())
            for gradient, place in zip(gradients, places, strict=True):
                if gradient is not None:
                    gradient[place] += next(found)
            total += loss.detach()
            share = (rows.stop - rows.start) / positions
            seen = contrastive_metrics(scores.detach(), positive, None, 1.0, loss.detach() / len(scores))
            for name, value in seen.items():
                sums[name] = sums.get(name, 0.0) + share * value
        count = positions * n
        return total / count, [None if gradient is None else gradient / count for gradient in gradients]

    loss = with_gradient(compute, query, key)
    return loss, sums
