"""The registry of index backends. One line each; a backend's library is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable

from retrieval.errors import UsageError
from retrieval.indexes.base import VectorIndex


def _exact() -> type[VectorIndex]:
    from retrieval.indexes.exact import ExactIndex

    return ExactIndex


def _faiss() -> type[VectorIndex]:
    from retrieval.indexes.faiss import FaissIndex
    from retrieval.indexes.library import load_faiss

    load_faiss()  # an absent library is told here, not at the first search
    return FaissIndex


def _milvus() -> type[VectorIndex]:
    from retrieval.indexes.milvus.collection import load_pymilvus
    from retrieval.indexes.milvus.index import MilvusIndex

    load_pymilvus()
    return MilvusIndex


def _fastscan() -> type[VectorIndex]:
    from retrieval.indexes.fastscan import FastScanIndex
    from retrieval.indexes.library import load_faiss

    load_faiss()
    return FastScanIndex


_LOADERS: dict[str, Callable[[], type[VectorIndex]]] = {
    "exact": _exact,
    "faiss": _faiss,
    "fastscan": _fastscan,
    "milvus": _milvus,
}


def backend_names() -> tuple[str, ...]:
    return tuple(_LOADERS)


def index_type(name: str) -> type[VectorIndex]:
    """The class of a backend; UsageError for an unknown name, MissingExtra when its library is absent."""
    try:
        load = _LOADERS[name]
    except KeyError:
        known = ", ".join(_LOADERS)
        raise UsageError(f"Unknown index backend '{name}': expected one of {known}.") from None
    return load()


def split_backend(backend: str) -> tuple[str, str]:
    """``exact`` -> ("exact", ""); ``faiss:IVF64,SQfp16,nprobe=8`` -> ("faiss", "IVF64,SQfp16,nprobe=8").

    ``milvus://host:19530,Flat`` -> ("milvus", "//host:19530,Flat").
    """
    name, _, options = backend.partition(":")
    return name, options
