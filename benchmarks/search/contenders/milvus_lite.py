"""Milvus Lite through its client, with an HNSW index; a filter is a boolean field.

Lite keeps one graph for each segment of at most 100,000 rows. What it holds in memory is told by how much the process
grew, since it doesn't count that itself.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.contender import BUILD_EF, EFFORTS, LINKS, Built, Effort, K, Search, Task, in_process
from benchmarks.search.scopes import Scope
from retrieval.types import Keys, UnitRows

_NAME, _KEY, _VECTOR = "search", "key", "vector"
_MESSAGE = 16 << 20  # bytes of rows at a time
_AT_ONCE = 64  # queries of one request


@contextmanager
def hnsw(task: Task) -> Iterator[Built]:
    import pymilvus

    logging.getLogger("pymilvus").setLevel(logging.ERROR)
    client = pymilvus.MilvusClient(uri=str(task.folder / "lite.db"))
    try:
        before = _anonymous()
        started = time.perf_counter()
        _filled(client, task)
        _indexed(client)
        seconds = time.perf_counter() - started
        gc.collect()
        after = _anonymous()
        held = None if before is None or after is None else max(0, after - before)
        efforts = tuple(_at(client, ef) for ef in EFFORTS)
        yield Built(f"Milvus Lite HNSW{LINKS}", seconds, held, _size(task.folder), efforts)
    finally:
        client.close()


def _filled(client: Any, task: Task) -> None:
    from pymilvus import DataType

    count, dim = task.rows.shape
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(_KEY, DataType.INT64, is_primary=True)
    schema.add_field(_VECTOR, DataType.FLOAT_VECTOR, dim=dim)
    masks = {_field(scope): scope.mask(count) for scope in task.scopes if scope.allowed is not None}
    for field in masks:
        schema.add_field(field, DataType.BOOL)
    client.create_collection(_NAME, schema=schema)
    step = max(1, _MESSAGE // (4 * dim))
    for start in range(0, count, step):
        stop = min(count, start + step)
        client.insert(
            _NAME,
            [
                {_KEY: n + 1, _VECTOR: task.rows[n]} | {field: bool(mask[n]) for field, mask in masks.items()}
                for n in range(start, stop)
            ],
        )
    client.flush(_NAME)


def _indexed(client: Any) -> None:
    index = client.prepare_index_params()
    index.add_index(_VECTOR, index_type="HNSW", metric_type="IP", params={"M": LINKS, "efConstruction": BUILD_EF})
    client.create_index(_NAME, index)
    client.load_collection(_NAME)


def _at(client: Any, ef: int) -> Effort:
    def search(scope: Scope) -> Search:
        expression = "" if scope.allowed is None else f"{_field(scope)} == true"

        def ask(queries: UnitRows) -> Keys:
            parts = (queries[start : start + _AT_ONCE] for start in range(0, len(queries), _AT_ONCE))
            return np.concatenate([_answered(client, part, expression, ef) for part in parts])

        return ask

    return in_process(f"ef={ef}", search)


def _answered(client: Any, queries: UnitRows, expression: str, ef: int) -> Keys:
    stated = {"metric_type": "IP", "params": {"ef": ef}}
    answers = client.search(_NAME, data=list(queries), filter=expression, limit=K, search_params=stated)
    keys = np.full((len(queries), K), -1, np.int64)
    for line, hits in zip(keys, answers, strict=True):
        line[: len(hits)] = [hit[_KEY] for hit in hits]
    return keys


def _field(scope: Scope) -> str:
    return f"in_scope_{scope.number}"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _anonymous() -> int | None:
    """Bytes of this process that no file backs, where the system tells."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    told = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(told["RssAnon"].split()[0]) * 1024
