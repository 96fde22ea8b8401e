"""All that nominates among stored rows: the smaller space, codes that are gone through whole, and codes in lists."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from retrieval.errors import CorruptIndex
from retrieval.indexes.codes import Codes, lists_for
from retrieval.indexes.finer import Finer, suits
from retrieval.indexes.library import load_faiss, write_index
from retrieval.indexes.noise import Noise
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
    """``lists`` and ``spread`` are None where rows are few, ``finer`` where they are few or short."""

    projection: Projection
    whole: Codes
    lists: Codes | None
    spread: Spread | None
    finer: Finer | None

    @classmethod
    def over(cls, rows: Rows, directions: int = 0, lists: int = 0, directory: Path | None = None) -> Self:
        """Of all rows. ``directions``, ``lists``: 0 for what suits them. ``directory``: where places are written; None
        to hold them."""
        lists = lists or lists_for(len(rows))
        sample = np.linspace(0, len(rows) - 1, min(len(rows), max(_SAMPLE, _SAMPLE_PER_LIST * lists)), dtype=np.intp)
        learnt = np.ascontiguousarray(rows.vectors[sample])
        projection = Projection.learn(learnt, directions)
        placed = projection.of(learnt).rows
        codes = [Codes.empty(placed, count) for count in ((1, lists) if lists > 1 else (1,))]
        blocks = _coded(rows, projection, codes)
        queries = displaced(learnt[np.linspace(0, len(learnt) - 1, _ASKED, dtype=np.intp)])
        asked = projection.of(queries)
        if lists > 1 and suits(rows.dim, placed.shape[1]):
            shape = (len(rows), placed.shape[1])
            finer: Finer | None = Finer.over(blocks, shape, directory).measured(queries, asked, rows)
        else:
            finer = None
            deque(blocks, maxlen=0)  # nobody wants them
        return cls._of(projection, [each.measured(queries, asked, rows) for each in codes], finer)

    @classmethod
    def _of(cls, projection: Projection, codes: list[Codes], finer: Finer | None) -> Self:
        lists = codes[1] if len(codes) > 1 else None
        return cls(projection, codes[0], lists, None if lists is None else Spread.of(lists.index), finer)

    def save(self, directory: Path) -> None:
        """Into the directory that it was built in, or another one."""
        codes = [self.whole] if self.lists is None else [self.whole, self.lists]
        noise = [*(each.noise for each in codes), *((self.finer.noise,) if self.finer else ())]
        save_array(directory / DIRECTIONS_FILE, self.projection.directions)
        save_array(directory / MEAN_FILE, self.projection.mean)
        save_array(directory / NOISE_FILE, np.array([(each.offset, each.spread) for each in noise]))
        for file, each in zip(CODES_FILES, codes, strict=False):
            write_index(directory / file, each.index)
        if self.finer:
            self.finer.save(directory)

    @classmethod
    def open(cls, directory: Path, rows: Rows) -> Self:
        """OSError, ValueError or RuntimeError when a file can't be read; CorruptIndex when they do not fit ``rows``."""
        directions = np.load(directory / DIRECTIONS_FILE, allow_pickle=False)
        mean = np.load(directory / MEAN_FILE, allow_pickle=False)
        noise = [Noise(*each) for each in np.load(directory / NOISE_FILE, allow_pickle=False).tolist()]
        files = [file for file in CODES_FILES if (directory / file).exists()]
        codes = [
            Codes(load_faiss().read_index(str(directory / file)), each)
            for file, each in zip(files, noise, strict=False)
        ]
        finer = Finer.open(directory, noise[len(codes)]) if len(noise) > len(codes) else None
        shapes = [*((each.index.ntotal, each.index.d) for each in codes), *((finer.places.shape,) if finer else ())]
        expected = (len(rows), directions.shape[-1])
        fits = directions.shape[0] == rows.dim and mean.shape == (rows.dim,) and set(shapes) == {expected}
        if not fits or {directions.dtype, mean.dtype} != {_FLOAT}:
            raise CorruptIndex(
                f"The codes do not fit their {len(rows)} rows of dim {rows.dim} (there are {shapes}, of {mean.shape}): "
                "rebuild the index."
            )
        return cls._of(Projection.onto(np.ascontiguousarray(directions), mean), codes, finer)


def _coded(rows: Rows, projection: Projection, codes: list[Codes]) -> Iterator[npt.NDArray[np.float32]]:
    """Adds all rows to the codes, block by block, and yields where they lie."""
    for start in range(0, len(rows), _BLOCK):
        block = projection.of(np.ascontiguousarray(rows.vectors[start : start + _BLOCK])).rows
        for each in codes:
            each.index.add(block)
        yield block
