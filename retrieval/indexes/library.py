"""FAISS (https://faiss.ai) as the indexes that are built with it load and write it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from retrieval.errors import MissingExtra


@cache  # it is asked for at every search
def load_faiss() -> Any:
    """The module; MissingExtra when it is absent."""
    if find_spec("faiss") is None:
        raise MissingExtra("faiss", "faiss-cpu")
    import faiss

    return faiss


def write_index(path: Path, index: Any) -> None:
    """Through a file of ours: FAISS itself would not say that the disk is full."""
    faiss = load_faiss()
    with open(path, "wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """One query is answered sooner by one thread than by several that must be woken; the setting is this thread's."""
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    if wanted:
        faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
