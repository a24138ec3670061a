"""InfoNCE by blocks of rows. Shape legend: N queries, M keys, Q remembered keys, D dimension, B rows of a block."""

import torch
from torch import Tensor

from .unit import by_temperature, unit

CELLS = 2**22  # similarities held at a time: 16 MiB in float32
PANEL = 4096  # remembered keys taken at a time


def row_info_nce(
    query_ND: Tensor,
    key_MD: Tensor,
    positive: Tensor,
    exclude: Tensor | None,
    memory_QD: Tensor | None,
    temperature: float | Tensor,
    *,
    shift: bool,
    normalize_memory: bool,
    need_query: bool = True,
    need_key: bool = True,
    need_temperature: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Return InfoNCE of dot products, its gradient by queries, by keys, and by the temperature.

        e_ij = exp(q_i . k_j / t)    r_i = sum_j e_ij    L = 1/N sum_i (log r_i - q_i . k_p(i) / t)
        g_ij = (e_ij / r_i - [j = p(i)]) / (N t)    dL/dq_i = sum_j g_ij k_j    dL/dk_j = sum_i g_ij q_i

    The gradient is taken while a block's similarities are at hand: three products, nothing computed twice. Remembered
    keys, which have no gradient, are passed over once in panels: their part of dL/dq is summed before r is known and
    divided by it afterwards. By temperature: dL/dt = -1/t sum_i q_i . dL/dq_i.

    Args:
        query_ND: `(N, D)`; no gradient is recorded.
        key_MD: `(M, D)`.
        positive: `(N,)` long, columns of the batch's own keys.
        exclude: `(N,)` long, one column a row that does not count (unless it is the positive), or None.
        memory_QD: `(Q, D)` or None.
        temperature: > 0.
        shift: subtract each row's maximum before the exponential. Without, similarities over the temperature must stay
            within +-42, which cosines do for temperatures > 2/85.
        normalize_memory: take remembered keys over their norms.
        need_query: return the gradient by the queries, otherwise None.
        need_key: return the gradient by the batch's keys, otherwise None.
        need_temperature: return the gradient by the temperature, otherwise None; it takes the one by the queries.
    """
    n, m = len(query_ND), len(key_MD)
    grad_query = torch.empty_like(query_ND) if need_query or need_temperature else None
    grad_key = torch.zeros_like(key_MD) if need_key else None
    loss = query_ND.new_zeros(())
    one_11 = query_ND.new_ones(1, 1) / (-n * temperature)  # of the gradient, at the positives
    size = max(1, min(n, CELLS // max(m, PANEL if memory_QD is not None else 1)))
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        query_BD, column_B1 = query_ND[rows], positive[rows].unsqueeze(1)
        scaled_BD = query_BD / temperature
        block_BM = scaled_BD @ key_MD.T
        chosen_B1 = block_BM.gather(1, column_B1)
        top_B1 = block_BM.amax(1, keepdim=True) if shift else None
        (block_BM if top_B1 is None else block_BM.sub_(top_B1)).exp_()
        if exclude is not None:
            other_B1 = exclude[rows].unsqueeze(1)
            block_BM.scatter_(1, other_B1, block_BM.gather(1, other_B1) * (other_B1 == column_B1))
        sum_B1 = block_BM.sum(1, keepdim=True)
        far_BD = None
        if memory_QD is not None:
            own_top_B1 = top_B1
            sum_B1, far_BD, top_B1 = _remembered(scaled_BD, memory_QD, sum_B1, top_B1, normalize_memory)
            if own_top_B1 is not None and top_B1 is not None:
                block_BM *= (own_top_B1 - top_B1).exp_()
        loss += (sum_B1.log() - chosen_B1).sum()
        if top_B1 is not None:
            loss += top_B1.sum()
        if grad_query is None and grad_key is None:
            continue
        sum_B1 = sum_B1 * (n * temperature)
        block_BM /= sum_B1
        block_BM.scatter_add_(1, column_B1, one_11.expand_as(column_B1))
        if grad_query is not None:
            torch.mm(block_BM, key_MD, out=grad_query[rows])
            if far_BD is not None:
                grad_query[rows] += far_BD / sum_B1
        if grad_key is not None:
            grad_key.addmm_(block_BM.T, query_BD)
    heat = by_temperature(query_ND, grad_query, temperature) if grad_query is not None and need_temperature else None
    return loss / n, grad_query, grad_key, heat


def _remembered(
    scaled_BD: Tensor, memory_QD: Tensor, sum_B1: Tensor, top_B1: Tensor | None, normalize: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the sums of exponentials and the row maxima with the remembered keys, and sum_j e_ij k_j over them."""
    far_BD = torch.zeros_like(scaled_BD)
    for left in range(0, len(memory_QD), PANEL):
        panel = memory_QD[left : left + PANEL]
        panel = unit(panel)[0] if normalize else panel
        logits = scaled_BD @ panel.T
        if top_B1 is not None:
            higher = torch.maximum(top_B1, logits.amax(1, keepdim=True))
            down = (top_B1 - higher).exp_()
            sum_B1, far_BD, top_B1 = sum_B1 * down, far_BD * down, higher
            logits -= higher
        logits.exp_()
        sum_B1 = sum_B1 + logits.sum(1, keepdim=True)
        far_BD.addmm_(logits, panel)
    return sum_B1, far_BD, top_B1
