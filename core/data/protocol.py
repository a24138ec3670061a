"""What pretraining and evaluation ask of a data set. Shape legend: B examples of a batch, C channels, H x W size."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor


class Batch(NamedTuple):
    """Examples as the loader hands them on.

    Attributes:
        inputs: `(B, C, H, W)` uint8 images, which stay uint8 until they are on the device; or `(B, D)` float32 vectors.
        labels: `(B,)` long classes, -1 where unknown; or `(B, L)` long where each example has L labels of its own
            (the bytes of an emulator's memory).
    """

    inputs: Tensor
    labels: Tensor


class DataSet(Protocol):
    """A map-style data set that serves whole batches, so that one held in memory costs one indexing a batch.

    `torch.utils.data.DataLoader` calls `__getitems__` with the indices of a batch; it may run in worker processes.

    Attributes:
        shape: of one example, `(C, H, W)` or `(D,)`; all have the same.
        classes: names of the classes, where there are some: label i is `classes[i]`. Empty without labels.
        mean: one number a channel (or vector entry) for the inputs, images counted in [0, 1], over the training split.
        std: likewise, > 0.
    """

    shape: tuple[int, ...]
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the examples of these indices, in this order."""
        ...


class DataFactory(Protocol):
    """What a YAML of `configs/data/` describes: `data(split) -> DataSet`."""

    def __call__(self, split: str) -> DataSet:
        """Return the `train` or `test` split; they share no example, and `mean` and `std` are the training split's."""
        ...
