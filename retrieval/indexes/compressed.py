"""A trained FAISS index over all rows, by position: it nominates, and bounds whom it left out.

Let e be the longest distance between a row and what its code decodes to, measured when it is built. By Cauchy-Schwarz
no compressed similarity to a unit query is off by more than e, so nobody left out is more similar than the worst
nominee by more than e, and what rounding adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.errors import CorruptIndex
from retrieval.indexes import gpu, scan
from retrieval.indexes.library import load_faiss, write_index
from retrieval.indexes.rows import Positions, Rows
from retrieval.types import UnitRows

CODES_FILE = "codes.faiss"
_TRAIN_ROWS = 65536
_BLOCK = 16384


class Nomination(NamedTuple):
    positions: Positions  # ascending
    bound: float  # nobody gone through and left out is more similar than this


@dataclass(frozen=True, slots=True)
class Compressed:
    """``error``: longest distance of a row from its decoded code. ``copy``: on a GPU, where there is one."""

    index: Any
    error: float
    copy: gpu.Copy | None

    @classmethod
    def of(cls, rows: Rows, description: str, training_rows: int) -> Compressed:
        """As ``faiss.index_factory`` describes it, trained on evenly spread rows, ``training_rows`` of them or more."""
        faiss = load_faiss()
        index = faiss.index_factory(rows.dim, description, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            sample = np.linspace(0, len(rows) - 1, min(len(rows), max(_TRAIN_ROWS, training_rows)), dtype=np.intp)
            _train(index, rows.vectors[sample])
        return cls(index, _fill(index, rows), gpu.lifted(index))

    def save(self, directory: Path) -> None:
        write_index(directory / CODES_FILE, self.index)

    @classmethod
    def open(cls, directory: Path, rows: Rows, error: float) -> Compressed:
        """CorruptIndex when it is not over these rows; RuntimeError of FAISS when it can't be read."""
        index = load_faiss().read_index(str(directory / CODES_FILE))
        if (index.ntotal, index.d) != (len(rows), rows.dim):
            raise CorruptIndex(
                f"Expected {len(rows)} codes of dim {rows.dim}, got {index.ntotal} of {index.d}: rebuild the index."
            )
        return cls(index, error, gpu.lifted(index))

    def nominate(self, queries: UnitRows, wanted: int, positions: Positions | None, nprobe: int) -> list[Nomination]:
        """The ``wanted`` of each query by compressed similarity, of ``positions`` if given. Nothing shared is changed.

        The lists of ``nprobe`` nearest are gone through, 0 for an index without lists.
        """
        slack = self.error + scan.rounding_slack(self.index.d)
        if self.copy is not None and positions is None:
            done = self.copy.search(queries, wanted, nprobe)
            if done is not None:
                return [_nomination(*each, slack + gpu.ERROR) for each in zip(*done, strict=True)]
        params = _parameters(positions, self.index.ntotal, nprobe)
        one_by_one = (self.index.search(query[None, :], wanted, params=params) for query in queries)
        return [_nomination(sims[0], found[0], slack) for sims, found in one_by_one]


def _train(index: Any, sample: npt.NDArray[np.float32]) -> None:
    assistant = gpu.clusterer(index.d) if hasattr(index, "nlist") else None
    if assistant is None:
        index.train(sample)
        return
    index.clustering_index = assistant
    try:
        index.train(sample)
    except RuntimeError as error:
        gpu.failed("The GPU failed at finding lists, the CPU begins anew", error)
        index.clustering_index = None
        index.train(sample)
    finally:
        index.clustering_index = None  # it is not ours to keep


def _fill(index: Any, rows: Rows) -> float:
    """Add all rows by position and measure how far their codes are from them. Each is assigned to a list once."""
    lists = _Lists(index) if hasattr(index, "nlist") else None
    error = 0.0
    for start in range(0, len(rows), _BLOCK):
        block = np.ascontiguousarray(rows.vectors[start : start + _BLOCK])
        codes = lists.encoded(block) if lists else index.sa_encode(block)
        index.add_sa_codes(codes)
        decoded = index.sa_decode(codes)
        error = max(error, float(np.sqrt(((decoded.astype(np.float64) - block) ** 2).sum(axis=1).max())))
    return error


class _Lists:
    """The lists of a trained IVF index, found on the GPU if there is one."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self._centroids = load_faiss().downcast_index(index.quantizer)
        self._copy = gpu.lifted(self._centroids)

    def encoded(self, block: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Codes [n, bytes], each with the list it belongs to."""
        faiss = load_faiss()
        done = self._copy.search(block, 1) if self._copy else None
        _, found = done or self._centroids.search(block, 1)
        nearest = np.ascontiguousarray(found[:, 0])
        codes = np.empty((len(block), self._index.sa_code_size()), np.uint8)
        pointers = [faiss.swig_ptr(array) for array in (block, nearest, codes)]
        self._index.encode_vectors(len(block), *pointers, True)
        return codes


def _parameters(positions: Positions | None, count: int, nprobe: int) -> Any:
    faiss = load_faiss()
    options: dict[str, Any] = {}
    if positions is not None:
        chosen = np.zeros(count, bool)
        chosen[positions] = True
        options["sel"] = faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
    if nprobe:
        options["nprobe"] = nprobe
    kind = faiss.SearchParametersIVF if nprobe else faiss.SearchParameters
    return kind(**options) if options else None


def _nomination(sims: npt.NDArray[np.float32], found: npt.NDArray[np.int64], slack: float) -> Nomination:
    good = found >= 0
    worst = float(sims[good].min()) if good.any() else scan.NO_SIMILARITY
    return Nomination(np.sort(found[good]).astype(np.intp), worst + slack)
