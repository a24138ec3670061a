"""Batches of nested tensors in chunks of rows."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from ..check import whole


def split_rows(batch: Any, rows: int) -> list[Any]:
    """Return a batch in chunks of at most `rows` rows.

    Args:
        batch: a tensor, or a mapping, tuple, named tuple or list of them, nested as deep as you like; mappings become
            dicts. Tensors are split along their first dimension; scalars and what is no tensor stand in every chunk.
        rows: >= 1.

    Raises:
        ValueError: rows is not a whole number >= 1, or the tensors do not have one length >= 1.
    """
    whole("rows", rows, 1)
    lengths = {len(tensor) for tensor in tensors_of(batch) if tensor.ndim}
    if len(lengths) != 1 or not max(lengths):
        raise ValueError(f"tensors of a batch must have one number of rows >= 1, got {sorted(lengths)}")
    return [_rows(batch, slice(start, start + rows)) for start in range(0, max(lengths), rows)]


def tensors_of(batch: Any) -> Iterator[Tensor]:
    """Yield the tensors of a batch."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_of(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from tensors_of(value)


def _rows(batch: Any, rows: slice) -> Any:
    if isinstance(batch, Tensor):
        return batch[rows] if batch.ndim else batch
    if isinstance(batch, Mapping):
        return {name: _rows(value, rows) for name, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        parts = [_rows(value, rows) for value in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch
