"""Keys and unit rows side by side, in ascending key order: what every local index is made of.

On disk they are two NumPy ``.npy`` files, readable by anyone: ``keys.npy`` (int64 [n]) and ``vectors.npy``
(float32 [n, dim], C order), the second one memory-mapped when opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from retrieval.errors import CorruptIndex, UsageError
from retrieval.types import Keys, UnitRows

KEYS_FILE = "keys.npy"
VECTORS_FILE = "vectors.npy"
UNIT_TOLERANCE = 1e-3
_ROUNDING = 1e-5  # of a float32 norm: what the catalog let in at the edge must not be refused here
_SPARSE = 16  # with fewer keys than one in so many numbers, marks of all numbers are too many
_MANY = 64  # of more keys than one in so many it is sooner to mark them than to look each one up
_BLOCK = 16384  # rows written or checked at once

Positions = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Passing:
    """Rows that may be returned: ``positions`` ascend; ``mask`` bool [rows]: the same, for who asks of one row."""

    positions: Positions
    mask: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.positions)


def check_unit_rows(vectors: npt.ArrayLike, dim: int, what: str = "vectors") -> UnitRows:
    """The same rows as C-contiguous float32 [n, dim]; UsageError unless finite, of that dim and of norm 1 (1e-3)."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise UsageError(
            f"Expected {what} of shape [n, {dim}], got {list(rows.shape)}: were they made by another encoder?"
        )
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        norms = np.sqrt(np.vecdot(block, block))
        fit = np.abs(norms - 1.0) <= UNIT_TOLERANCE + _ROUNDING  # so that NaN is not
        if not fit.all():
            bad = np.flatnonzero(~fit)
            raise UsageError(
                f"Expected {what} that are finite and of length 1, got length {norms[bad[0]]} in row {start + bad[0]}: "
                "normalise them to unit length."
            )
    return rows


def check_keys(keys: npt.ArrayLike, count: int) -> Keys:
    """The same keys as int64 [count]; UsageError unless each is at least 1 and given once."""
    given = np.asarray(keys)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise UsageError(f"Expected a row of integer keys, got shape {list(given.shape)} of {given.dtype}.")
    if len(given) != count:
        raise UsageError(f"Expected one key per vector, got {len(given)} keys for {count} vectors.")
    checked = np.ascontiguousarray(given, dtype=np.int64)
    if count and checked.min() < 1:
        raise UsageError(f"Expected keys of at least 1, got {checked.min()}.")
    if len(np.unique(checked)) != count:
        raise UsageError("Expected every key once, but a key was given twice.")
    return checked


def check_batch(keys: npt.ArrayLike, vectors: npt.ArrayLike, dim: int, above: int) -> tuple[Keys, UnitRows]:
    """Both checked; UsageError unless the rows are fit and the keys ascend from ``above``, the last one so far."""
    rows = check_unit_rows(vectors, dim)
    checked = check_keys(keys, len(rows))
    if len(checked) and (checked[0] <= above or (np.diff(checked) <= 0).any()):
        raise UsageError(f"Expected keys in ascending order above {above}, got {checked[0]} to {checked[-1]}.")
    return checked, rows


class _Buffer:
    """Room for more rows than are in use. Rows below ``used`` never change, so views of them are safe to share."""

    __slots__ = ("keys", "used", "vectors")

    def __init__(self, keys: Keys, vectors: UnitRows, used: int) -> None:
        self.keys = keys
        self.vectors = vectors
        self.used = used


@dataclass(frozen=True, slots=True)
class Rows:
    """An immutable view. ``keys`` ascend strictly, so equal similarities are ordered by position."""

    keys: Keys
    vectors: UnitRows
    _buffer: _Buffer | None = None

    @classmethod
    def empty(cls, dim: int) -> Self:
        return cls(np.empty(0, np.int64), np.empty((0, dim), np.float32))

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.keys)

    def positions(self, keys: Keys) -> Positions:
        """Ascending positions of those of ``keys`` (sorted, unique) that are here."""
        if not len(self.keys):
            return np.empty(0, np.intp)
        first, last = int(self.keys[0]), int(self.keys[-1])
        keys = keys[np.searchsorted(keys, first) : np.searchsorted(keys, last, side="right")]
        if last - first + 1 == len(self.keys):  # none was ever deleted
            return keys - first
        if len(keys) * _MANY > len(self.keys) and last < _SPARSE * len(self.keys):
            marked = np.zeros(last + 1, bool)
            marked[keys] = True
            return np.flatnonzero(marked[self.keys])
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found: Positions = at[self.keys[at] == keys]
        return found

    def passing(self, keys: Keys) -> Passing:
        """Those of ``keys`` (sorted, unique) that are here."""
        positions, mask = self.positions(keys), np.zeros(len(self.keys), bool)
        mask[positions] = True
        return Passing(positions, mask)

    def of(self, keys: Keys) -> UnitRows:
        """The rows of these keys, in order; UsageError when one is not here."""
        at = np.searchsorted(self.keys, keys)
        here = at < len(self.keys)
        here[here] = self.keys[at[here]] == keys[here]
        if not here.all():
            raise UsageError(f"Key {keys[~here][0]} is not in the index.")
        found: UnitRows = self.vectors[at]
        return found

    def appended(self, keys: Keys, vectors: UnitRows, reserve: int = 0) -> Rows:
        """A view with more rows; this one stays as it is. UsageError, and nothing added, when the rows are not fit.

        Adding larger keys to the newest view costs only the new rows (amortised); anything else copies. ``reserve``:
        how many rows may follow in all, so that room is made once. Not to be called by two threads at once.
        """
        vectors = check_unit_rows(vectors, self.dim)
        keys = check_keys(keys, len(vectors))
        order = np.argsort(keys)
        if len(keys) and len(self.positions(keys[order])):
            raise UsageError(
                f"Key {self.keys[self.positions(keys[order])[0]]} is in the index already: keys are never reused."
            )
        if not len(keys):
            return self
        if len(self) and keys[order[0]] < self.keys[-1]:
            return self._merged(keys[order], vectors[order])
        return self._extended(keys[order], vectors[order], reserve)

    def _merged(self, keys: Keys, vectors: UnitRows) -> Rows:
        at = np.searchsorted(self.keys, keys)
        return Rows(np.insert(self.keys, at, keys), np.insert(self.vectors, at, vectors, axis=0))

    def _extended(self, keys: Keys, vectors: UnitRows, reserve: int) -> Rows:
        count, total = len(self), len(self) + len(keys)
        buffer = self._buffer
        if buffer is None or buffer.used != count or total > len(buffer.keys):
            room = max(total, count + reserve, count + count // 2, 1024)  # memory is used only where written
            buffer = _Buffer(np.empty(room, np.int64), np.empty((room, self.dim), np.float32), count)
            buffer.keys[:count] = self.keys
            buffer.vectors[:count] = self.vectors
        buffer.keys[count:total] = keys
        buffer.vectors[count:total] = vectors
        buffer.used = total
        return Rows(buffer.keys[:total], buffer.vectors[:total], buffer)

    @classmethod
    def written(cls, directory: Path, batches: Iterable[tuple[Keys, UnitRows]], dim: int) -> Self:
        """Both files streamed into an existing directory, in ascending key order, and opened."""
        with RowsWriter(directory, dim) as writer:
            for keys, vectors in batches:
                writer.write(keys, vectors)
        return cls.open(directory)

    def save(self, directory: Path) -> None:
        """Write both files into an existing directory."""
        with RowsWriter(directory, self.dim) as writer:
            for start in range(0, len(self), _BLOCK):
                writer.write(self.keys[start : start + _BLOCK], self.vectors[start : start + _BLOCK])

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Both files read back, vectors memory-mapped. CorruptIndex when they are not what ``save`` writes."""
        try:
            keys = np.load(directory / KEYS_FILE, allow_pickle=False)
            empty = not keys.size  # an empty file can't be mapped
            vectors = np.load(directory / VECTORS_FILE, mmap_mode=None if empty else "r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise CorruptIndex(
                f"The index files {KEYS_FILE} and {VECTORS_FILE} can't be read: rebuild the index."
            ) from error
        fits = keys.dtype == np.int64 and vectors.dtype == np.float32 and keys.ndim == 1 and vectors.ndim == 2
        if not fits or len(keys) != len(vectors) or not vectors.flags.c_contiguous or (np.diff(keys) <= 0).any():
            raise CorruptIndex(
                f"Expected n ascending int64 keys and n float32 rows, got {keys.dtype} {list(keys.shape)} and "
                f"{vectors.dtype} {list(vectors.shape)}: rebuild the index."
            )
        return cls(keys, vectors.view(np.ndarray))  # a memmap itself is slow to take rows of


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """A ``.npy`` file, as ``numpy.save`` writes it; but on a full disk the error says that it is full."""
    save_blocks(path, array.shape, [np.ascontiguousarray(array)])


def save_blocks(path: Path, shape: tuple[int, ...], blocks: Iterable[npt.NDArray[Any]]) -> None:
    """A ``.npy`` file of that shape, written block by block."""
    with open(path, "wb") as file:
        for number, block in enumerate(blocks):
            if not number:
                _write_header(file, block.dtype, shape)
            file.write(block.data)


class RowsWriter:
    """Streams rows to disk in ascending key order, in memory bounded by one batch. A context manager."""

    def __init__(self, directory: Path, dim: int) -> None:
        self.dim = dim
        self.count = 0
        self._last = 0
        self._keys = open(directory / KEYS_FILE, "wb")  # noqa: SIM115 - closed by __exit__
        self._vectors = open(directory / VECTORS_FILE, "wb")  # noqa: SIM115

    def __enter__(self) -> Self:
        self._write_headers()
        return self

    def write(self, keys: Keys, vectors: UnitRows) -> None:
        """Append a batch; UsageError when its rows are not fit or its keys do not ascend from the last batch."""
        keys, vectors = check_batch(keys, vectors, self.dim, self._last)
        if not len(keys):
            return
        self._keys.write(keys.data)
        self._vectors.write(vectors.data)
        self._last = int(keys[-1])
        self.count += len(keys)

    def _write_headers(self) -> None:
        for file, dtype, shape in (
            (self._keys, np.dtype(np.int64), (self.count,)),
            (self._vectors, np.dtype(np.float32), (self.count, self.dim)),
        ):
            _write_header(file, dtype, shape)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._keys, self._vectors:
            if error is None:
                self._write_headers()  # again, now that the count is known


def _write_header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    # NumPy pads the header so that the first axis can grow in place: the later one has the same length.
    file.seek(0)
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
