"""Where rows lie in the smaller space, uncoded: who is nominated by codes is looked at there before a row is read.

Rows of thousands of numbers are read from memory many times slower than places of a few hundred, which tell who is near
almost as well. Where rows are not much longer than places they are read at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval.indexes.judged import Nominated
from retrieval.indexes.noise import Noise, seen
from retrieval.indexes.products import distances
from retrieval.indexes.projection import Placed
from retrieval.indexes.rows import Rows, save_blocks
from retrieval.types import UnitRows

PLACES_FILE = "places.npy"
LONGER = 4  # times as long as a place a row must be


@dataclass(frozen=True, slots=True)
class Finer:
    """``places``: float32 [rows, directions], mapped from disk where they were written."""

    places: npt.NDArray[np.float32]
    noise: Noise

    def of(self, placed: Placed, nominated: Nominated) -> Nominated:
        """The same nominees, in the order in which their places tell them, with similarities by that."""
        found = distances(placed.rows, self.places, nominated.nominees)
        lines, order = np.arange(len(found))[:, None], np.argsort(found, axis=1)
        likely = self.noise.likely(found[lines, order], placed)
        return Nominated(nominated.nominees[lines, order], likely, self.noise.spread, nominated)

    def measured(self, queries: UnitRows, placed: Placed, rows: Rows) -> Finer:
        """With the noise that these queries meet in rows from everywhere."""
        everyone = np.tile(seen(len(rows)), (len(queries), 1))
        found = distances(placed.rows, self.places, everyone)
        return Finer(self.places, Noise.met(queries, placed, rows, everyone, found))


def suits(dim: int, directions: int) -> bool:
    """Whether places are worth their room for rows so long."""
    return dim >= LONGER * directions


def kept(
    blocks: Iterable[npt.NDArray[np.float32]], shape: tuple[int, int], directory: Path | None
) -> npt.NDArray[np.float32]:
    """Places that come block by block: written and mapped, or held where there is no directory."""
    if directory is None:
        return np.concatenate(list(blocks))
    save_blocks(directory / PLACES_FILE, shape, blocks)
    return opened(directory / PLACES_FILE)


def opened(path: Path) -> npt.NDArray[np.float32]:
    """Mapped; OSError or ValueError when it can't be read."""
    places: npt.NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    if places.dtype != np.float32 or not places.flags.c_contiguous:
        raise ValueError(f"Expected rows of float32 in {path.name}, got {places.dtype}.")
    return places.view(np.ndarray)  # a memmap itself is slow to read from
