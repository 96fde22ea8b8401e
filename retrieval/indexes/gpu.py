"""FAISS on a GPU: with the extra ``faiss-gpu``, and a GPU that the driver shows, copies of indexes are searched there.

What is stored, checked and filtered stays on the CPU. The copy nominates for questions without a filter, all queries of
a batch at once; lists are found, and vectors assigned to them, on the GPU when an index is built. Flat (float32 and
float16) and IVF indexes have such copies, 8-bit flat ones don't (FAISS has none). The first GPU is taken;
``CUDA_VISIBLE_DEVICES`` says which that is, and with none visible all is done by the CPU. So is what the GPU can't take
or fails at, and the log says so.
"""

from __future__ import annotations

import logging
import threading
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.indexes.library import load_faiss
from retrieval.types import UnitRows

MOST = 2048  # nominees, and lists, that FAISS selects on a GPU
# How far a similarity of unit rows can be off when both were rounded to 11 bits, as float16 and TF32 are: 2^-10, and as
# much again for what lies below the normal range of float16.
ERROR = 2.0**-9
_SCRATCH = 256 * 2**20  # bytes on the GPU for intermediate results, 1.5 GB if nothing is said

_log = logging.getLogger(__name__)
_in_turn = threading.Lock()  # FAISS: neither the resources nor the indexes of a GPU may be used by two threads

Nominated = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]  # similarities and positions [queries, wanted]


class Copy:
    """A copy of a trained index on the GPU. It does not grow when the other does."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @property
    def alive(self) -> bool:
        """Until the GPU has failed at a search."""
        return self._index is not None

    def search(self, queries: UnitRows, wanted: int, nprobe: int = 0) -> Nominated | None:
        """The ``wanted`` nearest of each query, positions -1 where there are fewer; None where the GPU can't."""
        index = self._index
        if index is None or max(wanted, nprobe) > MOST:
            return None
        faiss = load_faiss()
        params = faiss.SearchParametersIVF(nprobe=nprobe) if nprobe else None
        try:
            with _in_turn:
                sims, found = index.search(np.ascontiguousarray(queries), wanted, params=params)
        except RuntimeError as error:  # of FAISS: as a rule the GPU's memory, which others use too
            self._index = None
            failed("The GPU failed at a search, the CPU goes on without it", error)
            return None
        return sims, found


def lifted(index: Any) -> Copy | None:
    """A copy on the GPU; None without one, for an index that has no such copy, and where it does not fit."""
    if not count() or not _has_copy(index):
        return None
    faiss = load_faiss()
    try:
        with _in_turn:
            return Copy(faiss.index_cpu_to_gpu(_resources(), 0, index))
    except RuntimeError as error:
        size = index.ntotal * index.sa_code_size() / 2**20
        failed(f"An index of {size:.0f} MB is searched on the CPU, the GPU could not take it", error)
        return None


def clusterer(dim: int) -> Any | None:
    """An empty flat index on the GPU by which lists are found; None without one. Keep it while it is in use."""
    if not count():
        return None
    faiss = load_faiss()
    try:  # resources of its own: that takes long, and searches go on meanwhile
        return faiss.index_cpu_to_gpu(_new_resources(), 0, faiss.IndexFlatIP(dim))
    except RuntimeError as error:
        failed("Lists are found on the CPU, the GPU could not be used", error)
        return None


def failed(what: str, error: Exception) -> None:
    """Says so in the log, in a line."""
    _log.warning("%s: %s", what, " ".join(str(error).split())[:200])


@cache
def count() -> int:
    """How many GPUs FAISS sees; 0 with ``faiss-cpu``."""
    faiss = load_faiss()
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


@cache
def _resources() -> Any:
    """Scratch memory and streams, one for all copies of the process."""
    return _new_resources()


def _new_resources() -> Any:
    resources = load_faiss().StandardGpuResources()
    resources.setTempMemory(_SCRATCH)
    return resources


def _has_copy(index: Any) -> bool:
    faiss = load_faiss()
    if isinstance(index, faiss.IndexScalarQuantizer):
        return bool(index.sq.qtype == faiss.ScalarQuantizer.QT_fp16)
    return isinstance(index, (faiss.IndexFlat, faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer))
