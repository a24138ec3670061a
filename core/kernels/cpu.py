"""Which kernel serves a loss on a CPU. Shape legend: N queries, M keys of the batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..losses import clip, info_nce, nt_xent
from .both_directions import both_directions
from .case import Case, attached
from .rows import row_info_nce
from .symmetric import symmetric_nt_xent

SMALL = 2**17  # up to so many similarities the whole matrix is as fast


def on_cpu(case: Case, loss: Any) -> Tensor | None:
    """Return the loss from a kernel, or None where there is none; reads indices, which costs nothing on a CPU."""
    n, m = len(case.query), len(case.key)
    itself = torch.arange(n) if n == m and case.memory is None else None
    if loss is clip:
        return _clip(case, itself)
    if loss is info_nce or loss is nt_xent:
        return _one_way(case, itself, loss is nt_xent)
    return None


def _small(case: Case) -> bool:
    return len(case.query) * (len(case.key) + (0 if case.memory is None else len(case.memory))) <= SMALL


def _clip(case: Case, itself: Tensor | None) -> Tensor | None:
    if (
        itself is None
        or _small(case)
        or case.exclude is not None
        or not torch.equal(case.positive.sort().values, itself)
    ):
        return None

    def kernel(query: Tensor, key: Tensor, temperature: Any, needs: Sequence[bool]) -> Any:
        return both_directions(
            query, key, case.positive, temperature, shift=case.shift, need=any(needs), need_temperature=needs[2]
        )

    return attached(case, kernel)


def _one_way(case: Case, itself: Tensor | None, nt_xent: bool) -> Tensor | None:
    exclude = case.exclude
    without_itself = itself is not None and (exclude is None or torch.equal(exclude, itself))
    if nt_xent:
        if not without_itself:
            return None
        exclude = itself
    if exclude is not None and (nt_xent or case.query is case.key) and (case.positive == exclude).any():
        return None  # a row that is its own positive: the whole matrix says what comes of it
    if exclude is not None and without_itself and case.query is case.key and not case.shift:
        return attached(case, lambda z, _, t, needs: _symmetric(z, case.positive, t, needs))

    if _small(case):
        return None

    def kernel(query: Tensor, key: Tensor, temperature: Any, needs: Sequence[bool]) -> Any:
        return row_info_nce(
            query,
            key,
            case.positive,
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
