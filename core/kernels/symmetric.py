"""NT-Xent by tiles of the upper triangle. Shape legend: N rows, D dimension, B x C a tile."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .unit import by_temperature

ROWS, COLUMNS = 512, 2048  # of a tile; 4 MiB in float32, the fastest of five sizes tried at N = 2048 and 8192
KEPT = 2048  # up to this many rows the exponentials of the first pass are kept for the second: at most 9 MiB


def symmetric_nt_xent(
    z_ND: Tensor, positive: Tensor, temperature: float | Tensor, *, need: bool = True, need_temperature: bool = True
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return NT-Xent among N rows, its gradient by the rows, and by the temperature (Chen et al. 2020, eq. 1).

    With e_ij = exp(z_i . z_j / t) for i != j, which is symmetric, so that one tile serves its rows and its columns,

        r_i = sum_j e_ij    L = 1/N sum_i (log r_i - z_i . z_p(i) / t)
        dL/dz_i = 1/(N t) sum_j (e_ij / r_i + e_ij / r_j - [j = p(i)] - [i = p(j)]) z_j

    Two passes over the upper triangle, 4 N^2 D operations in place of the 6 N^2 D of the whole matrix forward and
    backward; nothing larger than a tile is stored. The positives are subtracted inside the tile, before the product,
    where a solved batch would otherwise lose its digits. By temperature: dL/dt = -1/(2 t) sum_i z_i . dL/dz_i.

    Args:
        z_ND: `(N, D)` rows of length at most 1; no gradient is recorded.
        positive: `(N,)` long, never the row itself.
        temperature: > 2/85, so that exponentials need no shift: they and their sums stay within float32.
        need: return the gradient by the rows, otherwise None.
        need_temperature: return the one by the temperature, otherwise None.
    """
    n, scale = z_ND.shape[0], 1 / float(temperature)
    if n <= ROWS:
        return _one_tile(z_ND, positive, scale, need, need_temperature)
    kept: list[Tensor] | None = [] if n <= KEPT and need else None
    buffer = z_ND.new_empty(0 if kept is not None else min(n, ROWS) * COLUMNS)
    sums_N = z_ND.new_zeros(n)
    for rows, columns in _tiles(n):
        tile = _exponentials(z_ND, rows, columns, scale, buffer)
        if kept is not None:
            kept.append(tile)
        sums_N[rows] += tile.sum(1)
        if rows != columns:
            sums_N[columns] += tile.sum(0)
    chosen = torch.dot(z_ND.reshape(-1), z_ND[positive].view(-1)) * scale
    loss = (sums_N.log().sum() - chosen) / n
    if not need:
        return loss, None, None

    unit = scale / n  # of the gradient; it goes into the weights, since those are fewer than the N x D sums
    inverse_N = sums_N.reciprocal_().mul_(unit)
    other = torch.empty_like(buffer)
    grad_ND = torch.zeros_like(z_ND)
    targets = _targets(positive)
    for i, (rows, columns) in enumerate(_tiles(n)):
        tile = kept[i] if kept is not None else _exponentials(z_ND, rows, columns, scale, buffer)
        both = other[: tile.numel()].view_as(tile) if kept is None else torch.empty_like(tile)
        tile *= torch.add(inverse_N[rows, None], inverse_N[columns], out=both)
        place = _place(rows, columns, targets[rows.start // ROWS])
        tile.view(-1).index_add_(0, place, tile.new_full((1,), -unit).expand(len(place)))
        grad_ND[rows].addmm_(tile, z_ND[columns])
        if rows != columns:
            grad_ND[columns].addmm_(tile.T, z_ND[rows])
    if not need_temperature:
        return loss, grad_ND, None
    return loss, grad_ND, by_temperature(z_ND, grad_ND, 1 / scale) / 2


def _one_tile(
    z_ND: Tensor, positive: Tensor, scale: float, need: bool, need_temperature: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the same where one tile holds all, in as few operations as it takes: those are what costs then."""
    n, column_N1 = z_ND.shape[0], positive.unsqueeze(1)
    tile = torch.addmm(z_ND.new_empty(()), z_ND, z_ND.T, beta=0, alpha=scale).exp_().fill_diagonal_(0.0)
    sums_N = tile.sum(1)
    loss = (sums_N.log().sum() - tile.gather(1, column_N1).log_().sum()) / n
    if not need:
        return loss, None, None
    inverse_N = (scale / n) / sums_N
    tile *= inverse_N.unsqueeze(1) + inverse_N
    minus_N1 = tile.new_full((n, 1), -scale / n)
    tile.scatter_add_(1, column_N1, minus_N1)
    tile.T.scatter_add_(1, column_N1, minus_N1)
    grad_ND = tile @ z_ND
    if not need_temperature:
        return loss, grad_ND, None
    return loss, grad_ND, by_temperature(z_ND, grad_ND, 1 / scale) / 2


def _tiles(n: int) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of the tiles of the upper triangle: a square on the diagonal, then what is right of it."""
    for start in range(0, n, ROWS):
        rows = slice(start, min(start + ROWS, n))
        yield rows, rows
        for left in range(rows.stop, n, COLUMNS):
            yield rows, slice(left, min(left + COLUMNS, n))


def _exponentials(z_ND: Tensor, rows: slice, columns: slice, scale: float, buffer: Tensor) -> Tensor:
    """Return e_ij of a tile, in the buffer if it has room."""
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    place = buffer[: shape[0] * shape[1]].view(shape) if len(buffer) else z_ND.new_empty(shape)
    tile = torch.addmm(place, z_ND[rows], z_ND[columns].T, beta=0, alpha=scale, out=place).exp_()
    return tile.fill_diagonal_(0.0) if rows == columns else tile


def _targets(positive: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return (row, column) of both [j = p(i)] and [i = p(j)], for each block of rows."""
    n = positive.shape[0]
    itself = torch.arange(n, device=positive.device)
    row, column = torch.cat((itself, positive)), torch.cat((positive, itself))
    order = row.argsort()
    edges = torch.arange(ROWS, n, ROWS, device=row.device)
    cuts = torch.searchsorted(row[order], edges).tolist()
    return list(zip(row[order].tensor_split(cuts), column[order].tensor_split(cuts), strict=True))


def _place(rows: slice, columns: slice, targets: tuple[Tensor, Tensor]) -> Tensor:
    """Return where in the tile, row after row, the targets lie that lie in it; one left of the diagonal never does."""
    row, column = targets
    inside = (column >= columns.start) & (column < columns.stop)
    return ((row - rows.start) * (columns.stop - columns.start) + (column - columns.start))[inside]
