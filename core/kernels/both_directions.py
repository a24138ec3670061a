"""CLIP's loss by tiles. Shape legend: N queries and as many keys, D dimension, B x C a tile."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .unit import by_temperature

ROWS, COLUMNS = 2048, 512  # of a tile: 4 MiB in float32


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
    n = query_ND.shape[0]
    chosen = torch.dot(query_ND.reshape(-1), key_ND[positive].view(-1)) / temperature
    log_row, log_column = _log_sums(query_ND, key_ND, temperature, shift)
    loss = ((log_row.sum() + log_column.sum()) / 2 - chosen) / n
    if not need:
        return loss, None, None, None
    grad_query, grad_key = torch.zeros_like(query_ND), torch.zeros_like(key_ND)
    unit = 1 / (2 * n * temperature)  # of the gradient; it goes into the weights
    inverse_row, inverse_column = log_row.neg().exp_().mul_(unit), log_column.neg().exp_().mul_(unit)
    other = query_ND.new_empty(min(n, ROWS) * min(n, COLUMNS))
    minus_2 = query_ND.new_full((1,), -2.0) * unit
    for rows, columns, tile in _tiles(query_ND, key_ND, temperature):
        both = other[: tile.numel()].view_as(tile)
        if shift:
            torch.sub(tile, log_column[columns], out=both).exp_()
            tile.sub_(log_row[rows, None]).exp_().add_(both).mul_(unit)
        else:
            tile.exp_().mul_(torch.add(inverse_row[rows, None], inverse_column[columns], out=both))
        column = positive[rows] - columns.start
        inside = ((column >= 0) & (column < tile.shape[1])).nonzero().squeeze(1)
        place = inside * tile.shape[1] + column[inside]
        tile.view(-1).index_add_(0, place, minus_2.expand(place.shape[0]))
        grad_query[rows].addmm_(tile, key_ND[columns])
        grad_key[columns].addmm_(tile.T, query_ND[rows])
    if not need_temperature:
        return loss, grad_query, grad_key, None
    return loss, grad_query, grad_key, by_temperature(query_ND, grad_query, temperature)


def _tiles(query_ND: Tensor, key_ND: Tensor, temperature: float | Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield rows, columns and logits of each tile, always in the same memory."""
    n = query_ND.shape[0]
    buffer = query_ND.new_empty(min(n, ROWS) * min(n, COLUMNS))
    for top in range(0, n, ROWS):
        rows = slice(top, min(top + ROWS, n))
        scaled_BD = query_ND[rows] / temperature
        for left in range(0, n, COLUMNS):
            columns = slice(left, min(left + COLUMNS, n))
            place = buffer[: (rows.stop - top) * (columns.stop - left)].view(rows.stop - top, columns.stop - left)
            yield rows, columns, torch.mm(scaled_BD, key_ND[columns].T, out=place)


def _log_sums(query_ND: Tensor, key_ND: Tensor, temperature: float | Tensor, shift: bool) -> tuple[Tensor, Tensor]:
    """Return the logarithms of the sums of exponentials over rows and over columns, `(N,)` each."""
    n = query_ND.shape[0]
    by_row, by_column = query_ND.new_zeros(n), query_ND.new_zeros(n)
    row_top, column_top = query_ND.new_full((n,), -torch.inf), query_ND.new_full((n,), -torch.inf)
    for rows, columns, tile in _tiles(query_ND, key_ND, temperature):
        if not shift:
            tile.exp_()
            by_row[rows] += tile.sum(1)
            by_column[columns] += tile.sum(0)
            continue
        for part, dim, top, total in ((rows, 1, row_top, by_row), (columns, 0, column_top, by_column)):
            higher = torch.maximum(top[part], tile.amax(dim))
            more = (tile - higher.unsqueeze(dim)).exp_().sum(dim)
            total[part] = total[part] * (top[part] - higher).exp_() + more
            top[part] = higher
    if not shift:
        return by_row.log_(), by_column.log_()
    return by_row.log_().add_(row_top), by_column.log_().add_(column_top)
