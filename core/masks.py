"""The ways to say who is positive and who does not count, as matrices. Shape legend: N queries, M keys."""

import torch
from torch import Tensor

from .check import shape
from .pairs import SameLabel


def positive_mask(positive: Tensor | SameLabel, columns: int) -> Tensor:
    """Return positives as an `(N, M)` matrix: bool, or floating where they were soft weights.

    Args:
        positive: as in `Pairs`; an index outside [0, M) raises torch's own error (on a GPU, a device-side assertion).
        columns: M.
    """
    if isinstance(positive, SameLabel):
        query = positive.query.unsqueeze(1)
        return (query == positive.key) & (query >= 0)
    if positive.ndim == 1:
        mask = torch.zeros(len(positive), columns, dtype=torch.bool, device=positive.device)
        return mask.scatter_(1, positive.unsqueeze(1), True)
    return positive


def exclude_mask(exclude: Tensor | None, columns: int) -> Tensor | None:
    """Return excluded columns as an `(N, M)` bool matrix, or None when nothing is excluded."""
    if exclude is None or exclude.ndim == 2:
        return exclude
    return positive_mask(exclude, columns)


def check_candidates(n: int, m: int, positive: Tensor | SameLabel, exclude: Tensor | None) -> None:
    """Raise a ValueError unless both are as `Pairs` documents for N queries and M keys; reads no values.

    Raises:
        ValueError: for example `exclude must be bool (6, 6) or long (6,), queries x keys, got torch.bool (6, 5)`.
    """
    if isinstance(positive, SameLabel):
        for name, labels, length in (("query", positive.query, n), ("key", positive.key, m)):
            if labels.dtype != torch.long or labels.shape != (length,):
                raise ValueError(f"labels of {name} must be long ({length},), got {labels.dtype} {shape(labels)}")
    else:
        check_positive(n, m, positive)
    if exclude is not None and not _index(exclude, n) and not (exclude.shape == (n, m) and exclude.dtype == torch.bool):
        raise ValueError(
            f"exclude must be bool ({n}, {m}) or long ({n},), queries x keys, got {exclude.dtype} {shape(exclude)}"
        )


def check_positive(n: int, m: int, positive: Tensor) -> None:
    """Raise a ValueError unless it is an index, a mask or soft weights for N queries and M keys; reads no values."""
    mask = positive.dtype == torch.bool or positive.is_floating_point()
    if not _index(positive, n) and not (mask and positive.shape == (n, m)):
        raise ValueError(
            f"positive must be long ({n},) or bool or floating ({n}, {m}), got {positive.dtype} {shape(positive)}"
        )


def _index(tensor: Tensor, n: int) -> bool:
    return tensor.dtype == torch.long and tensor.shape == (n,)
