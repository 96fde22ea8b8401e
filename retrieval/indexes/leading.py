"""Where rows lie along the few directions in which they differ most: little enough to read of everyone who passes a
filter, and telling as much as codes do, which are gone through whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from retrieval.indexes.judged import Nominated
from retrieval.indexes.noise import Noise, seen
from retrieval.indexes.products import NOBODY, distances, distances_of_one
from retrieval.indexes.projection import Placed
from retrieval.indexes.rows import Rows, save_blocks
from retrieval.types import UnitRows

LEADING_FILE = "leading.npy"
TURN_FILE = "turn.npy"
DIRECTIONS = 64
_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class Leading:
    """``turn`` float32 [directions, 64]: columns of most variance among places; ``places`` float32 [rows, 64], mapped
    where they were written."""

    turn: npt.NDArray[np.float32]
    places: npt.NDArray[np.float32]
    noise: Noise

    @classmethod
    def over(cls, places: npt.NDArray[np.float32], sample: npt.NDArray[np.float32], directory: Path | None) -> Self:
        """Of all rows by their ``places`` [rows, directions]; learnt from those of a ``sample`` of them."""
        _, vectors = np.linalg.eigh(np.cov(sample, rowvar=False))
        turn = np.ascontiguousarray(vectors[:, ::-1][:, :DIRECTIONS], dtype=np.float32)

        def blocks() -> Iterator[npt.NDArray[np.float32]]:
            for start in range(0, len(places), _BLOCK):
                yield np.ascontiguousarray(places[start : start + _BLOCK] @ turn)

        shape = (len(places), turn.shape[1])
        return cls(turn, kept(blocks(), shape, directory and directory / LEADING_FILE), Noise(1.0, 0.0))

    def near(self, placed: Placed, positions: npt.NDArray[np.intp], most: int) -> Nominated:
        """The ``most`` likeliest of the rows at these ``positions``, in no order but that the least likely is last."""
        turned = self._of(placed)
        nominees = np.full((len(turned), most), NOBODY, np.int64)
        found = np.full((len(turned), most), np.inf, np.float32)
        for line, place in enumerate(turned.rows):
            every = distances_of_one(place, self.places, positions)
            chosen = _least(every, most)
            nominees[line, : len(chosen)], found[line, : len(chosen)] = positions[chosen], every[chosen]
        return Nominated(nominees, self.noise.likely(found, turned), self.noise.spread)

    def measured(self, queries: UnitRows, placed: Placed, rows: Rows) -> Leading:
        """With the noise that these queries meet in rows from everywhere."""
        turned, everyone = self._of(placed), np.tile(seen(len(rows)), (len(queries), 1))
        found = distances(turned.rows, self.places, everyone)
        return replace(self, noise=Noise.met(queries, turned, rows, everyone, found))

    def _of(self, placed: Placed) -> Placed:
        rows = placed.rows @ self.turn
        lost = np.vecdot(placed.rows, placed.rows) - np.vecdot(rows, rows)
        return Placed(rows, placed.outside + lost)


def _least(values: npt.NDArray[np.float32], most: int) -> npt.NDArray[np.intp]:
    """Where the ``most`` least of the values are, the largest of them last."""
    if most > len(values):
        return np.arange(len(values))
    bound = np.partition(values, most - 1)[most - 1]  # sooner than numpy.argpartition
    chosen = np.flatnonzero(values <= bound)
    if len(chosen) > most:  # equal ones
        chosen = chosen[np.argpartition(values[chosen], most - 1)[:most]]
    largest = int(values[chosen].argmax())
    chosen[[largest, -1]] = chosen[[-1, largest]]
    return chosen


def kept(
    blocks: Iterator[npt.NDArray[np.float32]], shape: tuple[int, int], path: Path | None
) -> npt.NDArray[np.float32]:
    """Places that come block by block: written and mapped, or held where there is no path."""
    if path is None:
        return np.concatenate(list(blocks))
    save_blocks(path, shape, blocks)
    return opened(path)


def opened(path: Path) -> npt.NDArray[np.float32]:
    """Mapped; OSError or ValueError when it can't be read."""
    places: npt.NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    if places.dtype != np.float32 or places.ndim != 2 or not places.flags.c_contiguous:
        raise ValueError(f"Expected rows of float32 in {path.name}, got {places.dtype} {places.shape}.")
    return places.view(np.ndarray)  # a memmap itself is slow to read from
