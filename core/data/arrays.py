"""Arrays in `.npy` files. Shape legend: N examples, n of a split, B of a batch, C channels, H x W size, D entries."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..check import choice
from .mapped import Mapped, channels_last, whole_array
from .memory import encoded
from .protocol import Batch
from .split import SPLITS, part
from .statistics import Statistics, statistics


def arrays(
    split: str,
    *,
    inputs: str | Path,
    labels: str | Path | None = None,
    test_inputs: str | Path | None = None,
    test_labels: str | Path | None = None,
    layout: str | None = None,
    test_share: float = 0.2,
    seed: int = 0,
) -> "Arrays":
    """Return the examples of `.npy` files, of which only what is asked for is read.

    Args:
        split: `train` or `test`.
        inputs: `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)` uint8 images, or `(N, D)` float vectors.
        labels: `(N,)` integers or strings, or `(N, L)` integers; None: there are none. Integers < 0 are unknown.
            Labels `(N,)` are numbered from 0 in the order of their values.
        test_inputs: examples for testing; None: a seed splits `inputs`, class by class.
        test_labels: their labels.
        layout: `channels_first` or `channels_last`; None: as the shape tells, where one end is 1, 3 or 4.
        test_share: of each class, in [0, 1); without effect with `test_inputs`.
        seed: which examples are for testing, integer >= 0; likewise.

    Raises:
        ValueError: a file that is missing or holds something else, labels that do not fit, an empty split.
    """
    choice("split", split, SPLITS)
    if test_inputs is None and test_labels is not None:
        raise ValueError(f"test_labels need test_inputs, got {str(test_labels)!r} alone")
    files = {"train": Mapped(Path(inputs))}
    if test_inputs is not None:
        files["test"] = Mapped(Path(test_inputs))
    paths = {"train": labels, "test": test_labels}
    raw = [_labels(paths[name], file) for name, file in files.items()]
    if {len(each.shape) for each in raw} == {1}:
        everything, classes = encoded(np.concatenate(raw))
    else:
        everything, classes = torch.from_numpy(np.concatenate(raw).astype(np.int64)), ()
    labels_of = dict(zip(files, everything.split([len(each) for each in raw]), strict=True))

    def chosen(which: str, known: Statistics | None = None) -> Arrays:
        if test_inputs is not None:
            rows = np.arange(files[which].shape[0])
            return Arrays(files[which], labels_of[which], classes, rows=rows, layout=layout, known=known)
        strata = everything.numpy() if everything.ndim == 1 else np.zeros(len(everything))
        rows = part(which, strata, test_share, seed)
        return Arrays(files["train"], everything[rows], classes, rows=rows, layout=layout, known=known)

    train = chosen("train")
    test = train if split == "train" else chosen("test", (train.mean, train.std))
    if test.shape != train.shape:
        raise ValueError(f"inputs and test_inputs must have one shape, got {train.shape} and {test.shape}")
    return test


class Arrays:
    """Rows of a memory-mapped array, and their labels.

    Args:
        inputs: as :func:`arrays` takes them.
        labels: `(n,)` or `(n, L)` long, of the rows chosen.
        classes: names of the classes.
        rows: `(n,)` which rows of `inputs`.
        layout: as :func:`arrays` takes it.
        known: mean and standard deviation; None: computed from these rows.

    Raises:
        ValueError: inputs of another kind.
    """

    def __init__(
        self,
        inputs: Mapped,
        labels: Tensor,
        classes: Sequence[str],
        *,
        rows: np.ndarray,
        layout: str | None = None,
        known: Statistics | None = None,
    ) -> None:
        self.inputs, self.labels, self.classes, self.rows = inputs, labels, tuple(classes), rows
        images = inputs.dtype == np.uint8 and len(inputs.shape) in (3, 4)
        if not images and not (inputs.dtype.kind == "f" and len(inputs.shape) == 2):
            raise ValueError(
                "inputs must be (N, H, W), (N, H, W, C) or (N, C, H, W) uint8, or (N, D) floats, "
                f"got {inputs.shape} {inputs.dtype} in {str(inputs.path)!r}"
            )
        self._channels_last = images and channels_last(inputs.shape[1:], layout)
        self.shape = tuple(self._read([0]).shape[1:])
        self.mean, self.std = known or statistics(self._read, len(self))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the examples of these indices."""
        return Batch(self._read(indices), self.labels[torch.as_tensor(indices)])

    def _read(self, indices: Sequence[int]) -> Tensor:
        read = self.inputs.array[self.rows[np.asarray(indices)]]
        if read.dtype != np.uint8:
            return torch.from_numpy(read.astype(np.float32))
        return images_first(read, self._channels_last)


def images_first(images: np.ndarray, channels_last: bool) -> Tensor:
    """Return images `(B, H, W)`, `(B, H, W, C)` or `(B, C, H, W)` as a tensor `(B, C, H, W)`."""
    if images.ndim == 3:
        images = images[:, None]
    elif channels_last:
        images = images.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(images))


def _labels(path: str | Path | None, inputs: Mapped) -> np.ndarray:
    if len(inputs.shape) == 0 or inputs.shape[0] == 0:
        raise ValueError(f"inputs must hold examples, got shape {inputs.shape} in {str(inputs.path)!r}")
    if path is None:
        return np.full(inputs.shape[0], -1)
    labels = whole_array(Path(path))
    if (
        labels.ndim not in (1, 2)
        or len(labels) != inputs.shape[0]
        or (labels.ndim == 2 and labels.dtype.kind not in "biu")
    ):
        raise ValueError(
            f"labels must be {inputs.shape[0]} integers or strings, or rows of integers, one for each of the inputs, "
            f"got {labels.shape} {labels.dtype} in {str(path)!r}"
        )
    return labels
