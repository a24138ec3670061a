"""Data sets held in memory. Shape legend: N examples, B of a batch, C channels, H x W size, D entries, L labels."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .protocol import Batch
from .statistics import Statistics


class InMemory:
    """Examples in two tensors: a batch is one indexing of each.

    Args:
        inputs: `(N, C, H, W)` uint8 or `(N, D)` float32.
        labels: `(N,)` or `(N, L)` long, -1 where unknown.
        classes: names of the classes.
        statistics: mean and standard deviation of the training split.
    """

    def __init__(self, inputs: Tensor, labels: Tensor, classes: Sequence[str], statistics: Statistics) -> None:
        self.inputs, self.labels, self.classes = inputs, labels, tuple(classes)
        self.shape = tuple(inputs.shape[1:])
        self.mean, self.std = statistics

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the examples of these indices."""
        rows = torch.as_tensor(indices)
        return Batch(self.inputs[rows].contiguous(), self.labels[rows])


def encoded(values: np.ndarray) -> tuple[Tensor, tuple[str, ...]]:
    """Return labels that count from 0, and the name of each class: the distinct values in order.

    Args:
        values: `(N,)` integers or strings; integers < 0 are unknown and become -1.

    Returns:
        `(N,)` long, and the values as strings; label i is the i-th.

    Raises:
        ValueError: labels of another kind.
    """
    if values.ndim != 1 or values.dtype.kind not in "biuUS":
        raise ValueError(f"labels must be integers or strings, one an example, got {values.dtype} {values.shape}")
    known = values >= 0 if values.dtype.kind == "i" else np.ones(len(values), dtype=bool)
    names, codes = np.unique(values[known], return_inverse=True)
    labels = torch.full((len(values),), -1)
    labels[torch.from_numpy(known)] = torch.from_numpy(codes)
    return labels, tuple(str(name) for name in names.tolist())
