"""Arrays that stay on disk. Shape legend: N examples, C channels, H x W size."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..check import choice

LAYOUTS = ("channels_first", "channels_last")


class Mapped:
    """An `.npy` file, memory-mapped: only the rows asked for are read, and a worker process opens it itself.

    Args:
        path: the file.

    Raises:
        ValueError: no such file, or no plain array in it (pickled objects are never loaded).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = self.array
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"an array must be an .npy file of numbers, got {str(path)!r} ({error})") from error
        self.shape, self.dtype = found.shape, found.dtype

    @cached_property
    def array(self) -> np.ndarray:
        """The array; not to be written to."""
        loaded = np.load(self.path, mmap_mode="r", allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            loaded.close()
            raise ValueError("it is an archive of several")
        return loaded

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "array"}


def whole_array(path: Path) -> np.ndarray:
    """Return the whole array of an `.npy` file, in memory, with the errors of :class:`Mapped`."""
    return np.array(Mapped(path).array)


def channels_last(shape: tuple[int, ...], layout: str | None = None) -> bool:
    """Return whether images of this shape, `(H, W)` or three numbers, have their channels last (or none).

    Raises:
        ValueError: it cannot be told: `layout` must then be `channels_first` or `channels_last`.
    """
    if layout is not None:
        choice("layout", layout, LAYOUTS)
    if layout is not None or len(shape) == 2:
        return layout != "channels_first"
    first, last = (count in (1, 3, 4) for count in (shape[0], shape[-1]))
    if first == last:
        raise ValueError(f"layout must say channels_first or channels_last for images of shape {shape}, got null")
    return last
