"""Which kernel serves a loss on a CPU. Shape legend: N queries, M keys of the batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..losses import clip, info_nce, nt_xent, sup_con
from ..pairs import SameLabel
from .both_directions import both_directions
from .case import Case, attached
from .labels import label_info_nce
from .rows import row_info_nce
from .symmetric import symmetric_nt_xent

SMALL = 2**17  # up to so many similarities the whole matrix is as fast


def on_cpu(case: Case, loss: Any) -> Tensor | None:
    """Return the loss from a kernel, or None where there is none; reads indices, which costs nothing on a CPU."""
    n, m = len(case.query), len(case.key)
    itself = torch.arange(n) if n == m and case.memory is None else None
    if isinstance(case.positive, SameLabel):
        return _labels(case, case.positive) if loss in (info_nce, sup_con) else None
    if loss is clip:
        return _clip(case, case.positive, itself)
    if loss in (info_nce, sup_con, nt_xent):
        return _one_way(case, case.positive, itself, loss is nt_xent)
    return None


def _labels(case: Case, positive: SameLabel) -> Tensor | None:
    if case.memory is not None or case.cells <= SMALL:
        return None

    def kernel(query: Tensor, key: Tensor, temperature: Any, needs: Sequence[bool]) -> Any:
        return label_info_nce(
            query,
            key,
            positive,
            case.exclude,
            temperature,
            shift=case.shift,
            need_query=needs[0],
            need_key=needs[1],
            need_temperature=needs[2],
        )

    return attached(case, kernel)


def _clip(case: Case, positive: Tensor, itself: Tensor | None) -> Tensor | None:
    if itself is None or case.cells <= SMALL or case.exclude is not None:
        return None
    if not torch.equal(positive.sort().values, itself):
        return None

    def kernel(query: Tensor, key: Tensor, temperature: Any, needs: Sequence[bool]) -> Any:
        need, by_temperature = any(needs), needs[2]
        return both_directions(
            query, key, positive, temperature, shift=case.shift, need=need, need_temperature=by_temperature
        )

    return attached(case, kernel)


def _one_way(case: Case, positive: Tensor, itself: Tensor | None, nt_xent: bool) -> Tensor | None:
    exclude = case.exclude
    without_itself = itself is not None and (exclude is None or torch.equal(exclude, itself))
    if nt_xent:
        if not without_itself:
            return None
        exclude = itself
    if exclude is not None and (nt_xent or case.query is case.key) and (positive == exclude).any():
        return None  # a row that is its own positive: the whole matrix says what comes of it
    if exclude is not None and without_itself and case.query is case.key and not case.shift:
        low, high = (int(bound) for bound in positive.aminmax())
        if low < 0 or high >= positive.shape[0]:
            raise IndexError(f"positive must lie in [0, {positive.shape[0]}), got {low if low < 0 else high}")
        return attached(case, lambda z, _, t, needs: _symmetric(z, positive, t, needs))

    if case.cells <= SMALL:
        return None

    def kernel(query: Tensor, key: Tensor, temperature: Any, needs: Sequence[bool]) -> Any:
        return row_info_nce(
            query,
            key,
            positive,
            exclude,
            case.memory,
            temperature,
            shift=case.shift,
            normalize_memory=case.cosines,
            need_query=needs[0],
            need_key=needs[1],
            need_temperature=needs[2],
        )

    return attached(case, kernel)


def _symmetric(z: Tensor, positive: Tensor, temperature: Any, needs: Sequence[bool]) -> Any:
    """Queries and keys are one tensor: all of the gradient is handed to it as queries, none as keys."""
    loss, by_rows, by_temperature = symmetric_nt_xent(
        z, positive, temperature, need=any(needs), need_temperature=needs[2]
    )
    return loss, by_rows, None, by_temperature
