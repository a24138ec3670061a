"""InfoNCE, NT-Xent, CLIP and SupCon on a GPU: the Triton kernels of `gpu_tiles`, and which case they serve.

Shape legend: N queries, M keys of the batch, Q remembered keys, D dimension.
"""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..losses import clip, info_nce, nt_xent, sup_con
from ..pairs import SameLabel
from .case import Case, attached
from .unit import by_temperature

HOPPER, AMPERE, SMALLEST = 232_448, 166_912, 49_152  # bytes of shared memory a block may have: H100, A100, any
SMALL = 2**21  # up to so many similarities the whole matrix takes fewer launches
PROGRAMS = 128  # that share the columns' sums of CLIP, which take so many rows of M floats


class Tile(NamedTuple):
    """Rows, columns and dimensions of a tile, and how many warps work on it."""

    rows: int
    columns: int
    dimensions: int
    warps: int


def tile_for(dtype: torch.dtype, dim: int, shared: int) -> Tile:
    """Return the tile for a dtype, a dimension and the shared memory of a block in bytes.

    Where a piece is the whole dimension, a block's gradient stays on the chip. That the tiles fit is tested by
    compiling them; which are fastest was not measured yet.
    """
    wide = max(16, 1 << (dim - 1).bit_length())
    if dtype in (torch.bfloat16, torch.float16):
        if shared >= AMPERE:
            return Tile(128, 128, wide if wide <= 256 else 128, 8)
        return Tile(64, 64, min(wide, 64), 4)
    if shared >= HOPPER:
        return Tile(64, 64, wide if wide <= 128 else 64, 8)
    return Tile(64, 64, min(wide, 64), 8) if shared >= AMPERE else Tile(32, 32, min(wide, 64), 4)


def on_gpu(case: Case, loss: Any) -> Tensor | None:
    """Return the loss from the kernels, or None where there is none for it; nothing waits for the device."""
    if loss not in (info_nce, nt_xent, sup_con, clip) or case.query.dtype == torch.float64:
        return None
    if case.cells <= SMALL or find_spec("triton") is None:
        return None
    labels = isinstance(case.positive, SameLabel)
    exclude = case.exclude
    if loss is nt_xent:
        if labels or case.query.shape[0] != case.key.shape[0] or case.memory is not None:
            return None
        itself = torch.arange(case.query.shape[0], device=case.query.device)
        if exclude is not None:  # on the device, without waiting for it
            torch._assert_async((exclude == itself).all(), "exclude of nt_xent must be each row itself")
        exclude = itself
    if (labels and case.memory is not None) or (loss is clip and (labels or exclude is not None)):
        return None

    def kernel(query: Tensor, key: Tensor, temperature: float | Tensor, needs: Sequence[bool]) -> Any:
        return gpu_info_nce(
            query,
            key,
            case.positive,
            exclude,
            case.memory if case.memory is None or not case.cosines else torch.nn.functional.normalize(case.memory),
            temperature,
            symmetric=loss is clip,
            dtype=case.dtype,
            needs=needs,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )

    return attached(case, kernel)


def gpu_info_nce(
    query: Tensor,
    key: Tensor,
    positive: Tensor | SameLabel,
    exclude: Tensor | None,
    memory: Tensor | None,
    temperature: float | Tensor,
    *,
    symmetric: bool = False,
    dtype: torch.dtype = torch.float32,
    needs: Sequence[bool] = (True, True, True),
    deterministic: bool = False,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Return InfoNCE of dot products and its gradients by queries, keys and temperature; memory linear in N and M.

        x_ij = q_i . k_j / t    l_i = log sum_j e^{x_ij}    y_ij = [j in P_i] / |P_i|
        L = mean over queries with a positive of l_i - sum_j y_ij x_ij

    and with `symmetric` half of that and half of the same over keys. Maxima run along with the sums, so that every
    temperature is exact; similarities are computed twice, once for the sums and once for both gradients: 8 N^2 D
    operations, also for both directions of CLIP. Where queries are the keys (the same object), one pass without
    atomic additions gives the whole gradient: 6 N^2 D.

    Args:
        query: `(N, D)` float32; no gradient is recorded.
        key: `(M, D)` float32.
        positive: `(N,)` long, or labels.
        exclude: `(N,)` long or None.
        memory: `(Q, D)` or None.
        temperature: > 0; a tensor is read on the device.
        symmetric: both directions.
        dtype: of the products' inputs: bfloat16, float16 or float32; sums are float32.
        needs: whether gradients by query, key and temperature are wanted.
        deterministic: a second pass for the keys' gradient instead of atomic additions, whose order varies.
        tile: None: `tile_for`.
    """
    work = _Work(query, key, positive, exclude, memory, temperature, dtype, tile, symmetric)
    row_sum, chosen, count, column_sum = work.sums(columns=symmetric)
    loss, rows = _loss(row_sum, chosen, count)
    columns = None
    if symmetric:
        assert isinstance(positive, Tensor)
        chosen, count = (torch.zeros_like(column_sum).index_add(0, positive, x) for x in (chosen, count))
        back, columns = _loss(column_sum, chosen, count)
        loss = (loss + back) / 2
        rows, columns = (_Direction(x.log_sum + math.log(2), x.share / 2) for x in (rows, columns))
    if not any(needs):
        return loss, None, None, None
    for_query, for_key = work.gradients(rows, columns, needs, deterministic)
    for gradient in (for_query, for_key):
        if gradient is not None:
            gradient *= work.scale
    if not needs[2] or for_query is None:
        return loss, for_query, for_key, None
    # where queries are the keys, their gradient holds each similarity twice
    heat = by_temperature(query, for_query, temperature) / (2 if work.one_tensor else 1)
    return loss, for_query if needs[0] else None, for_key, heat


class _Direction(NamedTuple):
    """One direction's part of the gradient by x_ij, e^{x_ij - log_sum} - share * [positive], for each who looks."""

    log_sum: Tensor
    share: Tensor


def _loss(log_sum: Tensor, chosen: Tensor, count: Tensor) -> tuple[Tensor, _Direction]:
    """Return the mean loss over those with a positive, U of them, and its gradient: 1/U goes into both numbers."""
    used = count > 0
    users = used.sum().clamp(min=1)
    share = used / count.clamp(min=1)
    loss = torch.where(used, log_sum - chosen * share, 0.0).sum() / users
    return loss, _Direction((log_sum + users.log()).masked_fill(~used, torch.inf), share / users)


class _Work:
    """The inputs of the kernels, as they take them."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        positive: Tensor | SameLabel,
        exclude: Tensor | None,
        memory: Tensor | None,
        temperature: float | Tensor,
        dtype: torch.dtype,
        tile: Tile | None,
        symmetric: bool,
    ) -> None:
        self.query = query.to(dtype).contiguous()
        self.key = self.query if key is query else key.to(dtype).contiguous()
        self.memory = None if memory is None else memory.to(dtype).contiguous()
        self.one_tensor = key is query and memory is None and not symmetric
        self.labels = isinstance(positive, SameLabel)
        self.positive, self.label = positive if isinstance(positive, SameLabel) else (positive, positive)
        self.exclude = exclude
        # a number is written by the device: copying one from the host would wait for it
        heat = temperature.float() if isinstance(temperature, Tensor) else query.new_full((), temperature)
        self.scale = 1.0 / heat
        self.tile = tile_for(dtype, query.shape[1], _shared_memory(query.device)) if tile is None else tile
        precision = "tf32" if torch.get_float32_matmul_precision() != "highest" else "ieee"
        self.precision = precision if dtype == torch.float32 else "ieee"

    def sums(self, columns: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return `(N,)` log sums, sums over positives and their numbers; and `(M,)` log sums of columns."""
        from . import gpu_tiles

        (n, dim), m = self.query.shape, self.key.shape[0]
        row, chosen, count = (self.query.new_empty(n, dtype=torch.float32) for _ in range(3))
        blocks = -(-n // self.tile.rows)
        programs = min(blocks, PROGRAMS) if columns else blocks
        partial = row.new_full((programs, m) if columns else (1, 1), -torch.inf)
        gpu_tiles.log_sums[(programs,)](
            self.query,
            self.key,
            self.key if self.memory is None else self.memory,
            self.positive,
            self.label,
            self.positive if self.exclude is None else self.exclude,
            self.scale,
            row,
            chosen,
            count,
            partial,
            n,
            m,
            0 if self.memory is None else self.memory.shape[0],
            dim,
            programs,
            LABELS=self.labels,
            EXCLUDE=self.exclude is not None,
            MEMORY=self.memory is not None,
            COLUMNS=columns,
            **self._how(),
        )
        return row, chosen, count, partial.logsumexp(0)

    def gradients(
        self, rows: _Direction, columns: _Direction | None, needs: Sequence[bool], deterministic: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients by queries and by keys over the scale; all of it by queries where those are the keys."""
        if self.one_tensor:
            return self._pass(self.query, self.key, rows, rows, self.positive, self.positive, b_by_rows=False)[0], None
        memory = self.memory
        atomic = needs[1] and not deterministic
        by_query, by_key = self._pass(
            self.query, self.key, rows, columns, self.positive, self.label, memory=memory, atomic=atomic
        )
        if needs[1] and deterministic:  # keys are the rows; who is positive is said by the columns, the queries
            by_key = self._pass(
                self.key, self.query, columns, rows, self.label, self.positive, a_by_rows=False, b_by_rows=False
            )[0]
        return (by_query if needs[0] or needs[2] else None), by_key

    def _pass(
        self,
        a: Tensor,
        b: Tensor,
        of_a: _Direction | None,
        of_b: _Direction | None,
        a_positive: Tensor,
        b_positive: Tensor,
        *,
        a_by_rows: bool = True,
        b_by_rows: bool = True,
        memory: Tensor | None = None,
        atomic: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return g b, and with atomic additions g^T a: see `gpu_tiles.gradients`."""
        from . import gpu_tiles

        (r, dim), c = a.shape, b.shape[0]
        held = dim <= self.tile.dimensions
        da = torch.empty_like(a, dtype=torch.float32) if held else torch.zeros_like(a, dtype=torch.float32)
        db = torch.zeros_like(b, dtype=torch.float32) if atomic else None
        nothing = _Direction(da, da)
        first, second = of_a or nothing, of_b or nothing
        exclude = self.positive if self.exclude is None else self.exclude
        gpu_tiles.gradients[(-(-r // self.tile.rows),)](
            a,
            b,
            b if memory is None else memory,
            a_positive,
            b_positive,
            exclude,
            exclude,
            self.scale,
            first.log_sum,
            second.log_sum,
            first.share,
            second.share,
            da,
            da if db is None else db,
            r,
            c,
            0 if memory is None else memory.shape[0],
            dim,
            A=of_a is not None,
            B=of_b is not None,
            A_BY_ROWS=a_by_rows,
            B_BY_ROWS=b_by_rows,
            LABELS=self.labels,
            EXCLUDE=self.exclude is not None,
            MEMORY=memory is not None,
            ATOMIC=atomic,
            HELD=held,
            **self._how(),
        )
        return da, db

    def _how(self) -> dict[str, Any]:
        rows, columns, dimensions, warps = self.tile
        return {
            "BR": rows,
            "BC": columns,
            "BD": dimensions,
            "PRECISION": self.precision,
            "num_warps": warps,
            "num_stages": 2,
        }


def _shared_memory(device: torch.device) -> int:
    """Return the bytes of shared memory that a block may ask for; of the interpreter, the smallest there are."""
    if device.type != "cuda":
        return SMALLEST
    return getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", SMALLEST)
