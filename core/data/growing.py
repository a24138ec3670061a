"""Arrays that are written to disk row by row. Shape legend: T rows."""

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib import format as npy


class Growing:
    """An `.npy` file `(T, *shape)` that grows by a row at a time, so that only one row is in memory.

    A context manager: at its end the header gets the number of rows written, whatever ended it.

    Args:
        path: the file; overwritten.
        shape: of a row.
        dtype: of the array.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype, self.rows = tuple(shape), np.dtype(dtype), 0
        self._file = path.open("wb")
        self._write_header()  # NumPy leaves room for the number of rows to grow
        self._begin = self._file.tell()

    def append(self, row: Any) -> None:
        """Write one row.

        Raises:
            ValueError: it has another shape.
        """
        values = np.asarray(row, dtype=self.dtype)
        if values.shape != self.shape:
            raise ValueError(f"every row must have shape {self.shape}, got {values.shape} in row {self.rows}")
        self._file.write(values.tobytes())
        self.rows += 1

    def close(self) -> None:
        """Write the number of rows, and close the file."""
        self._file.seek(0)
        self._write_header()
        if self._file.tell() != self._begin:
            raise RuntimeError("the header of an .npy file has grown beyond the room that NumPy leaves in it")
        self._file.close()

    def __enter__(self) -> "Growing":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _write_header(self) -> None:
        description = npy.dtype_to_descr(self.dtype)
        header = {"descr": description, "fortran_order": False, "shape": (self.rows, *self.shape)}
        npy.write_array_header_1_0(self._file, header)
