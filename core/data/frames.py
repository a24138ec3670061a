"""Frames that `contraux record` wrote. Shape legend: T frames, B of a batch, C channels, H x W size, k stacked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..check import choice, whole
from .arrays import images_first
from .mapped import Mapped, whole_array
from .memory import encoded
from .protocol import Batch
from .split import SPLITS, episodes_part
from .statistics import Statistics, statistics


def frames(
    split: str,
    *,
    path: str | Path,
    frame_stack: int = 1,
    label: int | str | None = None,
    test_share: float = 0.2,
    seed: int = 0,
) -> "Frames":
    """Return the frames of a recording, of which only those asked for are read: uint8 `(k C, H, W)`.

    An example is frame t with the k - 1 before it, the newest last; before an episode's first frame there are zeros,
    as in Stable-Baselines3's `VecFrameStack`. No episode is in both splits.

    Args:
        split: `train` or `test`.
        path: the folder that `contraux record` wrote: `frames.npy`, `episodes.npy`, perhaps `ram.npy`.
        frame_stack: k, integer >= 1.
        label: `ram`: every byte of the emulator's memory that varies in the training episodes, `(B, L)` in [0, 255],
            whose addresses are in `label_names`; a number in [0, 127]: that byte, its values numbered from 0;
            None: no labels (-1).
        test_share: of the episodes, in [0, 1), at least one; 0 leaves none for testing.
        seed: which episodes are for testing, integer >= 0.

    Raises:
        ValueError: no recording, no RAM in it, fewer than two episodes to split, or a value that breaks its rule.
    """
    choice("split", split, SPLITS)
    root = Path(path)
    if not (root / "frames.npy").is_file():
        raise ValueError(f"path must be a folder that contraux record wrote, got {str(path)!r}, without a frames.npy")
    images, episodes = Mapped(root / "frames.npy"), whole_array(root / "episodes.npy")
    if images.dtype != np.uint8 or len(images.shape) != 4 or episodes.shape != images.shape[:1]:
        raise ValueError(
            f"frames.npy must be (T, H, W, C) uint8 and episodes.npy (T,), got {images.shape} {images.dtype} and "
            f"{episodes.shape} in {str(path)!r}"
        )
    numbers, episodes = np.unique(episodes, return_inverse=True)
    rows = {
        which: np.flatnonzero(np.isin(episodes, episodes_part(which, len(numbers), test_share, seed)))
        for which in {"train", split}
    }
    labels, classes, names = _labels(root, label, rows["train"], len(episodes))
    train = Frames(images, episodes, labels, classes, rows["train"], frame_stack=frame_stack)
    known = (train.mean, train.std)
    data = Frames(images, episodes, labels, classes, rows[split], frame_stack=frame_stack, known=known)
    data.label_names = names
    return data


class Frames:
    """Frames of some episodes, each with those before it.

    Args:
        images: `(T, H, W, C)` uint8.
        episodes: `(T,)`, the number of each frame's episode; an episode's frames lie together.
        labels: `(T,)` or `(T, L)` long.
        classes: names of the classes.
        rows: `(n,)` which frames are examples.
        frame_stack: k, integer >= 1.
        known: mean and standard deviation; None: computed from these rows.

    Attributes:
        label_names: what each of L labels is, such as `ram_17`; empty where there is one label or none.
    """

    label_names: Sequence[str] = ()

    def __init__(
        self,
        images: Mapped,
        episodes: np.ndarray,
        labels: Tensor,
        classes: Sequence[str],
        rows: np.ndarray,
        *,
        frame_stack: int = 1,
        known: Statistics | None = None,
    ) -> None:
        self.images, self.rows, self.classes = images, rows, tuple(classes)
        self.labels = labels[torch.from_numpy(rows)]
        self.frame_stack = whole("frame_stack", frame_stack, 1)
        changed = np.flatnonzero(np.diff(episodes, prepend=episodes[0] - 1))
        self._first = np.repeat(changed, np.diff(changed, append=len(episodes)))  # frame of each frame's episode
        self.shape = tuple(self._read([0]).shape[1:])
        single = known or statistics(lambda indices: self._images(self.rows[indices]), len(self))
        self.mean, self.std = single if known else tuple(each * self.frame_stack for each in single)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the frames of these indices, each with those before it in its episode."""
        return Batch(self._read(indices), self.labels[torch.as_tensor(indices)])

    def _read(self, indices: Sequence[int]) -> Tensor:
        newest = self.rows[np.asarray(indices)]
        stacked = []
        for back in range(self.frame_stack - 1, -1, -1):
            wanted = newest - back
            missing = wanted < self._first[newest]
            read = self._images(np.where(missing, newest, wanted))
            read[torch.from_numpy(missing)] = 0
            stacked.append(read)
        return torch.cat(stacked, 1)

    def _images(self, frames: np.ndarray) -> Tensor:
        return images_first(self.images.array[frames], channels_last=True)


def _labels(
    root: Path, label: int | str | None, train: np.ndarray, total: int
) -> tuple[Tensor, tuple[str, ...], tuple[str, ...]]:
    """Return labels, names of the classes, names of the labels."""
    if label is None:
        return torch.full((total,), -1), (), ()
    if not (root / "ram.npy").is_file():
        raise ValueError(f"label={label} needs the emulator's memory, got a recording without ram.npy: {root}")
    ram = whole_array(root / "ram.npy")
    if label == "ram":
        varies = np.flatnonzero((ram[train] != ram[train[0]]).any(0))
        return torch.from_numpy(ram[:, varies].astype(np.int64)), (), tuple(f"ram_{i}" for i in varies)
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < ram.shape[1]:
        raise ValueError(f"label must be null, ram, or a byte in [0, {ram.shape[1] - 1}], got {label!r}")
    labels, classes = encoded(ram[:, label])
    return labels, classes, ()
