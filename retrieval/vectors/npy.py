""".npy files, written a batch at a time and read without loading them whole."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from retrieval.errors import StoreError


class NpyWriter:
    """Rows [n, dim] appended to a new file, whose header tells their number in the end.

    Not a memory map: a full disk is then an error like any other, not a signal that ends the process.
    """

    def __init__(self, path: Path, dim: int, dtype: npt.DTypeLike) -> None:
        self.rows = 0
        self._dim = dim
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._file: BinaryIO = path.open("xb")
        self._header()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                self._file.seek(0)
                self._header()  # NumPy leaves room in it for the number of rows to grow

    def append(self, rows: npt.NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        self.rows += len(rows)

    def _header(self) -> None:
        facts = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.rows, self._dim),
        }
        np.lib.format.write_array_header_1_0(self._file, facts)


def open_npy(path: Path, name: str) -> npt.NDArray[Any]:
    """Float rows [n, dim], mapped and read only. StoreError naming the file for anything else; pickles are refused."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{name} can't be read as an array of NumPy: it is damaged or of another kind.") from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind != "f" or rows.shape[1] < 1:
        raise StoreError(f"{name} does not hold rows of floating-point numbers [n, dim]: it holds something else.")
    return rows
