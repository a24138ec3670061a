"""The Triton kernels of InfoNCE: tiles of similarities that never leave the chip.

Shape legend: R rows, C columns, Q remembered keys, D dimension; BR x BC a tile, BD a piece of the dimension.

A program owns a block of rows and passes over all columns. Rows and columns are queries and keys, or the other way
round. Everything is accumulated in float32; inputs are float32 (IEEE or TF32 products), bfloat16 or float16.
"""

import triton
import triton.language as tl


@triton.jit
def products(
    a_ptr, b_ptr, rows, columns, R, C, D, BR: tl.constexpr, BC: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr
):
    """Return the `(BR, BC)` dot products of rows of a and rows of b, zero outside."""
    tile = tl.zeros((BR, BC), tl.float32)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        inside = d < D
        a = tl.load(a_ptr + rows.to(tl.int64)[:, None] * D + d[None, :], (rows < R)[:, None] & inside[None, :], 0.0)
        b = tl.load(
            b_ptr + columns.to(tl.int64)[:, None] * D + d[None, :], (columns < C)[:, None] & inside[None, :], 0.0
        )
        tile = tl.dot(a, tl.trans(b), tile, input_precision=PRECISION)
    return tile


@triton.jit
def add_exponentials(x, top, total):
    """Return maximum and sum of exponentials of each row after one more tile (-inf: does not count)."""
    higher = tl.maximum(top, tl.max(x, 1))
    shift = tl.where(higher == float("-inf"), 0.0, higher)
    return higher, total * tl.exp(top - shift) + tl.sum(tl.exp(x - shift[:, None]), 1)


@triton.jit
def log_sums(
    query_ptr, key_ptr, memory_ptr, positive_ptr, label_ptr, exclude_ptr, scale_ptr,
    row_ptr, chosen_ptr, count_ptr, column_ptr,
    N, M, Q, D, programs,
    LABELS: tl.constexpr, EXCLUDE: tl.constexpr, MEMORY: tl.constexpr, COLUMNS: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write, for each query, log sum_j e^{x_ij}, the sum of x over its positives and their number.

    x = scale q . k over the candidates; `positive` holds an index a query, or its label where LABELS (then `label` has
    those of the keys). With COLUMNS also log sum_i e^{x_ij}, of the rows of each program apart: `(programs, M)`.
    """
    scale = tl.load(scale_ptr)
    program = tl.program_id(0)
    for block in range(program, tl.cdiv(N, BR), programs):
        rows = block * BR + tl.arange(0, BR)
        inside = rows < N
        positive = tl.load(positive_ptr + rows, inside, -1)
        exclude = positive
        if EXCLUDE:
            exclude = tl.load(exclude_ptr + rows, inside, -1)
        top = tl.full((BR,), float("-inf"), tl.float32)
        total = tl.zeros((BR,), tl.float32)
        chosen = tl.zeros((BR,), tl.float32)
        count = tl.zeros((BR,), tl.float32)
        for start in range(0, M, BC):
            columns = start + tl.arange(0, BC)
            x = scale * products(query_ptr, key_ptr, rows, columns, N, M, D, BR, BC, BD, PRECISION)
            live = inside[:, None] & (columns < M)[None, :]
            if LABELS:
                label = tl.load(label_ptr + columns, columns < M, -2)
                same = live & (positive[:, None] == label[None, :]) & (positive >= 0)[:, None]
            else:
                same = live & (positive[:, None] == columns[None, :])
            if EXCLUDE:
                out = exclude[:, None] == columns[None, :]
                if LABELS:
                    same = same & ~out
                live = live & (same | ~out)
            chosen += tl.sum(tl.where(same, x, 0.0), 1)
            count += tl.sum(same.to(tl.float32), 1)
            x = tl.where(live, x, float("-inf"))
            top, total = add_exponentials(x, top, total)
            if COLUMNS:
                place = column_ptr + program.to(tl.int64) * M + columns
                before = tl.load(place, columns < M, float("-inf"))
                higher = tl.maximum(before, tl.max(x, 0))
                shift = tl.where(higher == float("-inf"), 0.0, higher)
                more = tl.exp(before - shift) + tl.sum(tl.exp(x - shift[None, :]), 0)
                tl.store(place, shift + tl.log(more), columns < M)
        if MEMORY:
            for start in range(0, Q, BC):
                columns = start + tl.arange(0, BC)
                x = scale * products(query_ptr, memory_ptr, rows, columns, N, Q, D, BR, BC, BD, PRECISION)
                x = tl.where(inside[:, None] & (columns < Q)[None, :], x, float("-inf"))
                top, total = add_exponentials(x, top, total)
        tl.store(row_ptr + rows, top + tl.log(total), inside)
        tl.store(chosen_ptr + rows, chosen, inside)
        tl.store(count_ptr + rows, count, inside)


@triton.jit
def gradients(
    a_ptr, b_ptr, memory_ptr, a_positive_ptr, b_positive_ptr, a_exclude_ptr, b_exclude_ptr, scale_ptr,
    a_sum_ptr, b_sum_ptr, a_share_ptr, b_share_ptr, da_ptr, db_ptr,
    R, C, Q, D,
    A: tl.constexpr, B: tl.constexpr, A_BY_ROWS: tl.constexpr, B_BY_ROWS: tl.constexpr,
    LABELS: tl.constexpr, EXCLUDE: tl.constexpr, MEMORY: tl.constexpr, ATOMIC: tl.constexpr, HELD: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write da = g b, and with ATOMIC add g^T a to db, from one pass that computes the similarities again.

        g_ij = A (e^{x_ij - a_sum_i} - a_share_i same_ij) + B (e^{x_ij - b_sum_j} - b_share_j same_ij)

    A is the loss of the rows, B that of the columns. `same` says who is positive: by label, or by the index of each row
    (A_BY_ROWS, B_BY_ROWS) or else of each column. HELD keeps da on the chip, which needs D <= BD.
    """
    scale = tl.load(scale_ptr)
    rows = tl.program_id(0) * BR + tl.arange(0, BR)
    inside = rows < R
    BY_ROWS: tl.constexpr = (A and A_BY_ROWS) or (B and B_BY_ROWS)
    BY_COLUMNS: tl.constexpr = (A and not A_BY_ROWS) or (B and not B_BY_ROWS)
    if LABELS or BY_ROWS:
        a_positive = tl.load(a_positive_ptr + rows, inside, -1)
    if A:
        a_sum = tl.load(a_sum_ptr + rows, inside, float("inf"))
        a_share = tl.load(a_share_ptr + rows, inside, 0.0)
    held = tl.zeros((BR, BD), tl.float32)
    for start in range(0, C, BC):
        columns = start + tl.arange(0, BC)
        within = columns < C
        x = scale * products(a_ptr, b_ptr, rows, columns, R, C, D, BR, BC, BD, PRECISION)
        live = inside[:, None] & within[None, :]
        by_rows = live
        by_columns = live
        if LABELS:
            b_positive = tl.load(b_positive_ptr + columns, within, -2)
            by_rows = live & (a_positive[:, None] == b_positive[None, :]) & (a_positive >= 0)[:, None]
            by_columns = by_rows
        else:
            if BY_ROWS:
                by_rows = live & (a_positive[:, None] == columns[None, :])
            if BY_COLUMNS:
                b_positive = tl.load(b_positive_ptr + columns, within, -1)
                by_columns = live & (b_positive[None, :] == rows[:, None])
        g = tl.zeros((BR, BC), tl.float32)
        if A:
            same = by_rows if A_BY_ROWS else by_columns
            counts = live
            if EXCLUDE:
                out = tl.load(a_exclude_ptr + rows, inside, -1)[:, None] == columns[None, :]
                if LABELS:
                    same = same & ~out
                counts = live & (same | ~out)
            g += tl.where(counts, tl.exp(x - a_sum[:, None]), 0.0) - tl.where(same, a_share[:, None], 0.0)
        if B:
            same = by_rows if B_BY_ROWS else by_columns
            counts = live
            if EXCLUDE:
                out = tl.load(b_exclude_ptr + columns, within, -1)[None, :] == rows[:, None]
                if LABELS:
                    same = same & ~out
                counts = live & (same | ~out)
            b_sum = tl.load(b_sum_ptr + columns, within, float("inf"))
            b_share = tl.load(b_share_ptr + columns, within, 0.0)
            g += tl.where(counts, tl.exp(x - b_sum[None, :]), 0.0) - tl.where(same, b_share[None, :], 0.0)
        held = spread(g, a_ptr, b_ptr, da_ptr, db_ptr, held, rows, columns, R, C, D, ATOMIC, HELD, BD, PRECISION)
    if MEMORY:
        for start in range(0, Q, BC):
            columns = start + tl.arange(0, BC)
            x = scale * products(a_ptr, memory_ptr, rows, columns, R, Q, D, BR, BC, BD, PRECISION)
            g = tl.where(inside[:, None] & (columns < Q)[None, :], tl.exp(x - a_sum[:, None]), 0.0)
            held = spread(
                g, a_ptr, memory_ptr, da_ptr, db_ptr, held, rows, columns, R, Q, D, False, HELD, BD, PRECISION
            )
    if HELD:
        d = tl.arange(0, BD)
        place = da_ptr + rows.to(tl.int64)[:, None] * D + d[None, :]
        tl.store(place, held, inside[:, None] & (d < D)[None, :])


@triton.jit
def spread(
    g, a_ptr, b_ptr, da_ptr, db_ptr, held, rows, columns, R, C, D,
    ATOMIC: tl.constexpr, HELD: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add a tile's g b to da, whose rows are this program's own, and with ATOMIC g^T a to db; return what is held."""
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        of_rows = (rows < R)[:, None] & (d < D)[None, :]
        of_columns = (columns < C)[:, None] & (d < D)[None, :]
        b = tl.load(b_ptr + columns.to(tl.int64)[:, None] * D + d[None, :], of_columns, 0.0)
        weights = g.to(b.dtype)
        if HELD:
            held = tl.dot(weights, b, held, input_precision=PRECISION)
        else:
            place = da_ptr + rows.to(tl.int64)[:, None] * D + d[None, :]
            tl.store(place, tl.dot(weights, b, tl.load(place, of_rows, 0.0), input_precision=PRECISION), of_rows)
        if ATOMIC:
            a = tl.load(a_ptr + rows.to(tl.int64)[:, None] * D + d[None, :], of_rows, 0.0)
            part = tl.dot(tl.trans(weights), a, input_precision=PRECISION)
            tl.atomic_add(db_ptr + columns.to(tl.int64)[:, None] * D + d[None, :], part, of_columns)
    return held
