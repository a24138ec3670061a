"""Images that are opened when they are asked for. Shape legend: N examples, B of a batch, C channels, S size."""

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..check import choice, whole
from .decode import decode
from .protocol import Batch
from .statistics import Statistics, statistics

OPENED = 2_000  # images that mean and deviation are computed from: each has to be decoded


class Pictures:
    """Serves square uint8 images, decoded when they are asked for; in the place of a damaged one, another stands in.

    The stand-in is the next readable image of the same split, with its own label, so that batches keep their size and
    a run is reproducible. What could not be read is reported by name, once, also when several workers come upon it.

    Args:
        files: `files(i)` opens image i: a path or an open binary file.
        name: `name(i)` is how a report calls image i.
        labels: `(N,)` long, -1 where unknown.
        classes: names of the classes.
        size: of the squares, integer >= 1.
        channels: 3 for RGB, 1 for grey.
        known: mean and standard deviation, where they are given.
        train: the training split, which they are computed from otherwise; None: this is it.

    Raises:
        ValueError: a value breaks its rule, or no image at all can be read.
    """

    def __init__(
        self,
        files: Callable[[int], Path | BinaryIO],
        name: Callable[[int], str],
        labels: Tensor,
        classes: Sequence[str],
        *,
        size: int,
        channels: int = 3,
        known: Statistics | None = None,
        train: "Pictures | None" = None,
    ) -> None:
        self.files, self.name, self.labels, self.classes = files, name, labels, tuple(classes)
        self.size = whole("size", size, 1)
        choice("channels", str(channels), ("1", "3"))
        self.shape = (channels, size, size)
        self._known, self._train = known, train
        self._unreadable = torch.zeros(len(labels), dtype=torch.bool).share_memory_()  # workers tell each other
        self._readable(0)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the images of these indices, or who stands in for them, with their labels."""
        inputs = torch.empty((len(indices), *self.shape), dtype=torch.uint8)
        found = []
        for row, index in zip(inputs, indices, strict=True):
            pixels, stand_in = self._readable(int(index))
            row.numpy()[...] = pixels
            found.append(stand_in)
        return Batch(inputs, self.labels[found])

    @property
    def mean(self) -> Sequence[float]:
        """One number a channel, over the training split; computed when first asked for."""
        return self._statistics[0]

    @property
    def std(self) -> Sequence[float]:
        """Likewise, > 0."""
        return self._statistics[1]

    @cached_property
    def _statistics(self) -> Statistics:
        data = self if self._train is None else self._train
        return self._known or statistics(lambda indices: data.__getitems__(indices).inputs, len(data), OPENED)

    def _readable(self, index: int) -> tuple[np.ndarray, int]:
        """Return the pixels of the first readable image from `index` on, around the end, and its index."""
        for candidate in (*range(index, len(self)), *range(index)):
            if not self._unreadable[candidate]:
                try:
                    return decode(self.files(candidate), self.size, self.shape[0]), candidate
                except Exception as error:  # of many types: whatever a damaged file makes PIL raise
                    self._unreadable[candidate] = True
                    reason = f"{type(error).__name__}: {error}"
                    warnings.warn(f"{self.name(candidate)} cannot be read and is skipped ({reason})", stacklevel=2)
        raise ValueError(f"at least one image must be readable, got {len(self)} that are not, as {self.name(0)}")
