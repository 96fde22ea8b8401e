"""Where rows lie in the smaller space, uncoded: who is nominated by codes may be looked at there before a row is read.

Rows of thousands of numbers are read from memory many times slower than places of a few hundred, which tell who is near
almost as well. Where rows are not much longer than places they are read at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from retrieval.indexes.judged import Nominated
from retrieval.indexes.noise import Noise, seen
from retrieval.indexes.products import distances
from retrieval.indexes.projection import Placed
from retrieval.indexes.rows import Rows, save_array, save_blocks
from retrieval.types import UnitRows

PLACES_FILE = "places.npy"
LONGER = 4  # times as long as a place a row must be


@dataclass(frozen=True, slots=True)
class Finer:
    """``places``: float32 [rows, directions], mapped from disk where they were written."""

    places: npt.NDArray[np.float32]
    noise: Noise

    @classmethod
    def over(cls, blocks: Iterator[npt.NDArray[np.float32]], shape: tuple[int, int], directory: Path | None) -> Self:
        """Of places that come block by block: written and mapped, or held where there is no directory."""
        if directory is None:
            return cls(np.concatenate(list(blocks)), Noise(1.0, 0.0))
        save_blocks(directory / PLACES_FILE, shape, blocks)
        return cls.open(directory, Noise(1.0, 0.0))

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
        return replace(self, noise=Noise.met(queries, placed, rows, everyone, found))

    def save(self, directory: Path) -> None:
        """Into the directory that it was built in, or another one."""
        if not (directory / PLACES_FILE).exists():
            save_array(directory / PLACES_FILE, self.places)

    @classmethod
    def open(cls, directory: Path, noise: Noise) -> Self:
        """OSError or ValueError when the file can't be read."""
        places: npt.NDArray[np.float32] = np.load(directory / PLACES_FILE, mmap_mode="r", allow_pickle=False)
        if places.dtype != np.float32 or places.ndim != 2 or not places.flags.c_contiguous:
            raise ValueError(f"Expected rows of float32 in {PLACES_FILE}, got {places.dtype} {places.shape}.")
        return cls(places.view(np.ndarray), noise)  # a memmap itself is slow to read from


def suits(dim: int, directions: int) -> bool:
    """Whether places are worth their room for rows so long."""
    return dim >= LONGER * directions
