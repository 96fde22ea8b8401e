"""The index backends of Precedent, each as a generation that was just published has it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.search.contender import Built, Effort, K, Maker, Search, Task, in_process
from benchmarks.search.scopes import Scope
from retrieval.indexes import index_type
from retrieval.indexes.base import VectorIndex

_MAPPED = ("vectors.npy", "places.npy")  # read where they lie; the first is of every backend
_BATCH = 4096
# A backend that measures at its build how far it must look says so in these options. The curve has it look further and
# less far than that.
_MEASURED = ("probes", "look", "take", "wide", "ef")
_TIMES = (0.125, 0.25, 0.5, 0.75, 1, 2, 4)


def backend(name: str) -> Maker:
    """How the backend of this name is built, with the options it chooses."""

    @contextmanager
    def make(task: Task) -> Iterator[Built]:
        folder = task.folder / "built"
        index, seconds = _built(name, task, folder)
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        stored = sum(sizes.pop(name, 0) for name in _MAPPED)
        own = in_process(index.options or "every row", _asked_of(index))
        efforts = (own,) if index.exhaustive else _others(index, task.folder)
        yield Built(f"precedent {name}", seconds, sum(sizes.values()), stored, efforts, own)

    return make


def _built(name: str, task: Task, folder: Path) -> tuple[VectorIndex, float]:
    count, dim = task.rows.shape
    folder.mkdir()
    batches = (
        (np.arange(n, min(n + _BATCH, count)) + 1, np.ascontiguousarray(task.rows[n : n + _BATCH]))
        for n in range(0, count, _BATCH)
    )
    started = time.perf_counter()
    index = index_type(name).build(folder, batches, dim)
    return index, time.perf_counter() - started


def _asked_of(index: VectorIndex) -> Callable[[Scope], Search]:
    def search(scope: Scope) -> Search:
        return lambda queries: index.search(queries, K, scope.allowed)[0]

    return search


def _others(index: VectorIndex, folder: Path) -> tuple[Effort, ...]:
    """The same files, told to look less far and further."""
    opened = lru_cache(maxsize=1)(type(index).open)  # all clients share one, as they share those of others

    def at(times: float) -> Effort:
        options = scaled(index.options, times)
        copy = folder / f"times-{times}"

        def search(scope: Scope) -> Search:
            if not copy.exists():
                _told_otherwise(folder / "built", copy, index.name, options)
            there = opened(copy)
            return lambda queries: there.search(queries, K, scope.allowed)[0]

        return in_process(options, search)

    return tuple(at(times) for times in _TIMES)


def scaled(options: str, times: float) -> str:
    """``lists=64,probes=8,take=96`` twice is ``lists=64,probes=16,take=192``; no more lists than there are. What
    counts of ``reach`` is how far it goes beyond 100 per cent."""
    stated = dict(part.split("=") for part in options.split(","))
    for name in stated.keys() & set(_MEASURED):
        least = 1 if name == "probes" else K
        stated[name] = str(max(least, round(int(stated[name]) * times)))
    if "reach" in stated:
        stated["reach"] = str(round(100 + (int(stated["reach"]) - 100) * times))
    if "probes" in stated:
        stated["probes"] = str(min(int(stated["probes"]), int(stated["lists"])))
    return ",".join(f"{name}={value}" for name, value in stated.items())


def _told_otherwise(built: Path, copy: Path, name: str, options: str) -> None:
    facts = f"{name}.json"
    shutil.copytree(built, copy, copy_function=lambda old, new: Path(new).hardlink_to(old))
    told = json.loads((copy / facts).read_text())
    (copy / facts).unlink()
    (copy / facts).write_text(json.dumps(told | {"options": options}))
