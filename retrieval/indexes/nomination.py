"""All that nominates among stored rows: the smaller space, codes that are gone through whole, and codes in lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from retrieval.errors import CorruptIndex
from retrieval.indexes.codes import Codes, Noise, lists_for
from retrieval.indexes.library import load_faiss, write_index
from retrieval.indexes.projection import Projection
from retrieval.indexes.questions import displaced
from retrieval.indexes.rows import Rows, save_array
from retrieval.indexes.spread import Spread

DIRECTIONS_FILE = "directions.npy"
MEAN_FILE = "mean.npy"
NOISE_FILE = "noise.npy"
CODES_FILES = ("whole.faiss", "lists.faiss")
_SAMPLE = 20_000  # rows that directions and codes are learnt from
_SAMPLE_PER_LIST = 64
_ASKED = 200
_BLOCK = 8192
_FLOAT = np.dtype(np.float32)


@dataclass(frozen=True, slots=True)
class Nomination:
    """``lists`` and ``spread`` are None where rows are few."""

    projection: Projection
    whole: Codes
    lists: Codes | None
    spread: Spread | None

    @classmethod
    def over(cls, rows: Rows, directions: int = 0, lists: int = 0) -> Self:
        """Of all rows. ``directions``, ``lists``: 0 for what suits them."""
        lists = lists or lists_for(len(rows))
        sample = np.linspace(0, len(rows) - 1, min(len(rows), max(_SAMPLE, _SAMPLE_PER_LIST * lists)), dtype=np.intp)
        learnt = np.ascontiguousarray(rows.vectors[sample])
        projection = Projection.learn(learnt, directions)
        placed = projection.of(learnt).rows
        codes = [Codes.empty(placed, count) for count in ((1, lists) if lists > 1 else (1,))]
        for start in range(0, len(rows), _BLOCK):
            block = projection.of(np.ascontiguousarray(rows.vectors[start : start + _BLOCK])).rows
            for each in codes:
                each.index.add(block)
        queries = displaced(learnt[np.linspace(0, len(learnt) - 1, _ASKED, dtype=np.intp)])
        return cls._of(projection, [each.measured(queries, projection.of(queries), rows) for each in codes])

    @classmethod
    def _of(cls, projection: Projection, codes: list[Codes]) -> Self:
        lists = codes[1] if len(codes) > 1 else None
        return cls(projection, codes[0], lists, None if lists is None else Spread.of(lists.index))

    def save(self, directory: Path) -> None:
        codes = [self.whole] if self.lists is None else [self.whole, self.lists]
        save_array(directory / DIRECTIONS_FILE, self.projection.directions)
        save_array(directory / MEAN_FILE, self.projection.mean)
        save_array(directory / NOISE_FILE, np.array([(each.noise.offset, each.noise.spread) for each in codes]))
        for file, each in zip(CODES_FILES, codes, strict=False):
            write_index(directory / file, each.index)

    @classmethod
    def open(cls, directory: Path, rows: Rows) -> Self:
        """OSError, ValueError or RuntimeError when a file can't be read; CorruptIndex when they do not fit ``rows``."""
        directions = np.load(directory / DIRECTIONS_FILE, allow_pickle=False)
        mean = np.load(directory / MEAN_FILE, allow_pickle=False)
        noise = np.load(directory / NOISE_FILE, allow_pickle=False)
        codes = []
        for file, (offset, spread) in zip(CODES_FILES, noise.tolist(), strict=False):
            index = load_faiss().read_index(str(directory / file))
            shapes = (directions.shape, mean.shape, index.ntotal)
            if shapes != ((rows.dim, index.d), (rows.dim,), len(rows)) or {directions.dtype, mean.dtype} != {_FLOAT}:
                raise CorruptIndex(
                    f"The codes do not fit their {len(rows)} rows of dim {rows.dim} (there are {index.ntotal} of dim "
                    f"{index.d}): rebuild the index."
                )
            codes.append(Codes(index, Noise(offset, spread)))
        return cls._of(Projection.onto(np.ascontiguousarray(directions), mean), codes)
