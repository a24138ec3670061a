"""CLIP's loss by blocks of rows. Shape legend: N queries and as many keys, D dimension, B rows of a block."""

from collections.abc import Iterator

import torch
from torch import Tensor

CELLS = 2**22  # similarities held at a time: 16 MiB in float32


def both_directions(
    query_ND: Tensor,
    key_ND: Tensor,
    positive: Tensor,
    temperature: float | Tensor,
    *,
    shift: bool,
    need: bool = True,
    need_temperature: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Return the symmetric loss of CLIP, its gradient by queries and keys, and by the temperature.

        e_ij = exp(q_i . k_j / t)    r_i = sum_j e_ij    c_j = sum_i e_ij
        L = 1/(2N) sum_i (log r_i - s_ip(i)/t) + 1/(2N) sum_i (log c_p(i) - s_ip(i)/t)
        g_ij = (e_ij / r_i + e_ij / c_j - 2 [j = p(i)]) / (2 N t)    dL/dq = g k    dL/dk = g^T q

    Both directions come from the same similarities: 8 N^2 D operations in two passes, where two losses one after the
    other take 12 (Radford et al. 2021, figure 3, https://arxiv.org/abs/2103.00020).

    Args:
        query_ND: `(N, D)`; no gradient is recorded.
        key_ND: `(N, D)`.
        positive: `(N,)` long, a permutation.
        temperature: > 0.
        shift: subtract maxima before exponentials. Without, similarities over the temperature must stay within +-42,
            which cosines do for temperatures > 2/85.
        need: return the gradients by queries and keys, otherwise None.
        need_temperature: return the one by the temperature, otherwise None.
    """
    n = len(query_ND)
    chosen = torch.dot(query_ND.reshape(-1), key_ND[positive].view(-1)) / temperature
    log_row, log_column = _log_sums(query_ND, key_ND, temperature, shift)
    loss = ((log_row.sum() + log_column.sum()) / 2 - chosen) / n
    if not need:
        return loss, None, None, None
    grad_query, grad_key = torch.empty_like(query_ND), torch.zeros_like(key_ND)
    unit = 1 / (2 * n * temperature)  # of the gradient; it goes into the weights
    inverse_row, inverse_column = log_row.neg().exp_().unsqueeze(1).mul_(unit), log_column.neg().exp_().mul_(unit)
    for rows, block in _blocks(query_ND, key_ND, temperature):
        if shift:
            other = (block - log_column).exp_()
            block.sub_(log_row[rows, None]).exp_().add_(other).mul_(unit)
        else:
            block.exp_().mul_(inverse_row[rows] + inverse_column)
        block.scatter_add_(1, positive[rows, None], (block.new_full((1, 1), -2.0) * unit).expand(len(block), 1))
        torch.mm(block, key_ND, out=grad_query[rows])
        grad_key.addmm_(block.T, query_ND[rows])
    if not need_temperature:
        return loss, grad_query, grad_key, None
    return loss, grad_query, grad_key, torch.dot(query_ND.reshape(-1), grad_query.view(-1)) / -temperature


def _blocks(query_ND: Tensor, key_ND: Tensor, temperature: float | Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of rows and their `(B, N)` logits, always in the same memory."""
    n = len(query_ND)
    size = max(1, min(n, CELLS // n))
    buffer = query_ND.new_empty(size, n)
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        yield rows, torch.mm(query_ND[rows] / temperature, key_ND.T, out=buffer[: rows.stop - start])


def _log_sums(query_ND: Tensor, key_ND: Tensor, temperature: float | Tensor, shift: bool) -> tuple[Tensor, Tensor]:
    """Return the logarithms of the sums of exponentials over rows and over columns, `(N,)` each."""
    n = len(query_ND)
    by_row, by_column = query_ND.new_empty(n), query_ND.new_zeros(n)
    top = query_ND.new_full((n,), -torch.inf)
    for rows, block in _blocks(query_ND, key_ND, temperature):
        if not shift:
            block.exp_()
            torch.sum(block, 1, out=by_row[rows])
            by_column += block.sum(0)
            continue
        torch.logsumexp(block, 1, out=by_row[rows])
        higher = torch.maximum(top, block.amax(0))
        by_column = by_column * (top - higher).exp_() + block.sub_(higher).exp_().sum(0)
        top = higher
    return (by_row, by_column.log_().add_(top)) if shift else (by_row.log_(), by_column.log_())
