"""Where rows lie in the smaller space, uncoded: who is nominated by codes may be looked at there before a row is read,
and everyone who passes a filter where that is sooner or codes leave doubt.

Rows of thousands of numbers are read from memory many times slower than places of a few hundred, which tell who is near
almost as well. Where rows are not much longer than places they are read at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from retrieval.indexes.judged import Nominated
from retrieval.indexes.leading import LEADING_FILE, TURN_FILE, Leading, kept, opened
from retrieval.indexes.noise import Noise, seen
from retrieval.indexes.products import distances
from retrieval.indexes.projection import Placed
from retrieval.indexes.rows import Rows, save_array
from retrieval.types import UnitRows

PLACES_FILE = "places.npy"
LONGER = 4  # times as long as a place a row must be


@dataclass(frozen=True, slots=True)
class Finer:
    """``places``: float32 [rows, directions], mapped from disk where they were written; ``leading``: the most telling
    part of them."""

    places: npt.NDArray[np.float32]
    noise: Noise
    leading: Leading

    @classmethod
    def over(
        cls,
        blocks: Iterator[npt.NDArray[np.float32]],
        shape: tuple[int, int],
        sample: npt.NDArray[np.float32],
        directory: Path | None,
    ) -> Self:
        """Of places that come block by block, and a ``sample`` of them."""
        places = kept(blocks, shape, directory and directory / PLACES_FILE)
        return cls(places, Noise(1.0, 0.0), Leading.over(places, sample, directory))

    def of(self, placed: Placed, nominated: Nominated) -> Nominated:
        """The same nominees, in the order in which their places tell them, with similarities by that."""
        found = distances(placed.rows, self.places, nominated.nominees)
        lines, order = np.arange(len(found))[:, None], np.argsort(found, axis=1)
        likely = self.noise.likely(found[lines, order], placed)
        return Nominated(nominated.nominees[lines, order], likely, self.noise.spread, nominated)

    def among(self, placed: Placed, positions: npt.NDArray[np.intp], most: int) -> Nominated:
        """The ``most`` likeliest of the rows at these ``positions``: of all of them those that lead, by their
        places."""
        return self.of(placed, self.leading.near(placed, positions, most))

    def measured(self, queries: UnitRows, placed: Placed, rows: Rows) -> Finer:
        """With the noise that these queries meet in rows from everywhere."""
        everyone = np.tile(seen(len(rows)), (len(queries), 1))
        found = distances(placed.rows, self.places, everyone)
        noise = Noise.met(queries, placed, rows, everyone, found)
        return Finer(self.places, noise, self.leading.measured(queries, placed, rows))

    @property
    def noises(self) -> tuple[Noise, Noise]:
        return self.noise, self.leading.noise

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of what must fit: [rows, directions] twice."""
        turned = (len(self.leading.places), len(self.leading.turn))
        return [self.places.shape, turned if self.leading.turn.shape[1:] == self.leading.places.shape[1:] else ()]

    def save(self, directory: Path) -> None:
        """Into the directory that it was built in, or another one."""
        save_array(directory / TURN_FILE, self.leading.turn)
        for file, places in ((PLACES_FILE, self.places), (LEADING_FILE, self.leading.places)):
            if not (directory / file).exists():
                save_array(directory / file, places)

    @classmethod
    def open(cls, directory: Path, noise: Noise, leading: Noise) -> Self:
        """OSError or ValueError when a file can't be read."""
        turn = np.ascontiguousarray(np.load(directory / TURN_FILE, allow_pickle=False), np.float32)
        return cls(opened(directory / PLACES_FILE), noise, Leading(turn, opened(directory / LEADING_FILE), leading))


def suits(dim: int, directions: int) -> bool:
    """Whether places are worth their room for rows so long."""
    return dim >= LONGER * directions
