"""One collection of a Milvus server: the only code that speaks to it. Its errors come out as ours."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Self

import numpy as np
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from retrieval.errors import CorruptIndex, MissingExtra, StoreError
from retrieval.indexes.milvus.target import Target
from retrieval.types import Keys, Similarities, UnitRows

LIMIT = 16384  # most results of one search, set in the server
_MESSAGE = 16 << 20  # bytes; the server refuses 64 MB
_BATCH = 4096  # rows
_STALLED = 600.0  # seconds without one more row indexed
_NOT_FOUND = (4, 100)  # error codes, of the old servers and the new
_ALL_LISTS = 65536  # the most that may be asked for: a server makes as many lists as it sees fit, Lite always 128
_KEY, _VECTOR = "key", "vector"


class MilvusSettings(BaseSettings):
    """What is not part of an index's name, from ``PRECEDENT_MILVUS_*``."""

    model_config = SettingsConfigDict(env_prefix="PRECEDENT_MILVUS_", frozen=True)

    token: SecretStr = Field(SecretStr(""), description="name:password or an API key")
    timeout: float = Field(30.0, gt=0, description="seconds after which a server that does not answer is gone")


def load_pymilvus() -> Any:
    """The module; MissingExtra when it is absent."""
    if find_spec("pymilvus") is None:
        raise MissingExtra("pymilvus", "milvus")
    import pymilvus

    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs a traceback of what it raises, and we tell it
    return pymilvus


def connect(target: Target) -> Any:
    """A client of the server; StoreError when it is gone, MissingExtra without the library."""
    pymilvus, settings = load_pymilvus(), MilvusSettings()
    if not target.address.startswith("//") and find_spec("milvus_lite") is None:
        raise MissingExtra("milvus-lite", "milvus-lite")
    with _translated(target):
        return pymilvus.MilvusClient(
            uri=target.uri,
            db_name=target.database,
            token=settings.token.get_secret_value(),
            timeout=settings.timeout,
        )


@dataclass(frozen=True, slots=True)
class Collection:
    """Rows of ``dim`` under integer keys. Safe to use from several threads; every method may raise StoreError.

    Reads wait for every write before them where it matters (``count``). A search does not: no row is written once a
    collection has been counted, and waiting for the server's next tick costs 200 ms of the 5 that a search takes.
    """

    target: Target
    name: str
    client: Any
    timeout: float

    @classmethod
    def make(cls, target: Target, name: str, dim: int) -> Self:
        """A new, empty one with its index declared."""
        pymilvus, collection = load_pymilvus(), cls.named(target, name)
        client = collection.client
        with _translated(target):
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field(_KEY, pymilvus.DataType.INT64, is_primary=True)
            schema.add_field(_VECTOR, pymilvus.DataType.FLOAT_VECTOR, dim=dim)
            client.create_collection(name, schema=schema, consistency_level="Strong", timeout=collection.timeout)
            index = client.prepare_index_params()
            kind, parameters = ("IVF_FLAT", {"nlist": target.lists}) if target.lists else ("FLAT", {})
            index.add_index(_VECTOR, index_type=kind, metric_type="IP", params=parameters)
            client.create_index(name, index, sync=False, timeout=collection.timeout)
        return collection

    @classmethod
    def named(cls, target: Target, name: str) -> Self:
        """One that may be there; nothing is asked but whether there is a server."""
        return cls(target, name, connect(target), MilvusSettings().timeout)

    def dim(self) -> int:
        """CorruptIndex when there is no such collection."""
        with _translated(self.target):
            fields = self.client.describe_collection(self.name, timeout=self.timeout)["fields"]
        found = {field["name"]: field.get("params", {}) for field in fields}
        return int(found.get(_VECTOR, {}).get("dim", 0)) if _KEY in found else 0

    def upsert(self, keys: Keys, vectors: UnitRows) -> None:
        """Rows in, in messages the server takes. Upserted, so that one sent twice is there once."""
        for part in _parts(len(keys), vectors.shape[1]):
            rows = [
                {_KEY: key, _VECTOR: vector} for key, vector in zip(keys[part].tolist(), vectors[part], strict=True)
            ]
            with _translated(self.target):
                self.client.upsert(self.name, rows, timeout=4 * self.timeout)

    def seal(self, expected: int) -> None:
        """Make what was sent durable and indexed, and searched from now on; StoreError as ``settle``."""
        with _translated(self.target):
            self.client.flush(self.name, timeout=max(300.0, self.timeout))
            self._await_index()
        self.settle(expected)

    def settle(self, expected: int) -> None:
        """Let every search from now on see what was sent; StoreError when it is not as many rows."""
        self.load()
        counted = self.count()
        if counted != expected:
            raise StoreError(
                f"Expected {expected} vectors in Milvus collection {self.name}, the server counts {counted}: rebuild "
                "the index."
            )

    def load(self) -> None:
        """Into the memory of the query nodes, if it is not there."""
        with _translated(self.target):
            self.client.load_collection(self.name, timeout=max(300.0, self.timeout))

    def _await_index(self) -> None:
        most, since = -1, time.monotonic()
        while True:
            found = self.client.describe_index(self.name, _VECTOR, timeout=self.timeout) or {}
            indexed = int(found.get("indexed_rows") or 0)
            if str(found.get("state", "Finished")) in {"Finished", "3"} and not found.get("pending_index_rows"):
                return
            if indexed > most:
                most, since = indexed, time.monotonic()
            elif time.monotonic() - since > _STALLED:
                raise StoreError(f"Milvus indexes no more rows of collection {self.name}: see the server's logs.")
            time.sleep(0.2)

    def count(self) -> int:
        """Rows, every earlier write included."""
        with _translated(self.target):
            found = self.client.query(
                self.name, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=self.timeout
            )
        return int(found[0]["count(*)"])

    def nominate(
        self, queries: UnitRows, limit: int, expressions: Sequence[str], *, everything: bool
    ) -> list[tuple[Keys, Similarities]]:
        """For each query the ``limit`` best by the server's own float32 sums, over all expressions, best first.

        ``everything``: go through each row that passes, not only the lists nearest to the query.
        """
        parts: list[list[tuple[Keys, Similarities]]] = [[] for _ in queries]
        probes = _ALL_LISTS if everything else self.target.nprobe
        parameters = {"metric_type": "IP", "params": {"nprobe": probes} if self.target.lists else {}}
        for expression in expressions:
            with _translated(self.target):
                answers = self.client.search(
                    self.name,
                    data=list(queries),
                    filter=expression,
                    limit=limit,
                    search_params=parameters,
                    output_fields=[_KEY],
                    consistency_level="Session",
                    timeout=self.timeout,
                )
            for part, hits in zip(parts, answers, strict=True):
                keys = np.fromiter((hit.pk for hit in hits), np.int64, len(hits))
                part.append((keys, np.fromiter((hit.distance for hit in hits), np.float32, len(hits))))
        return [_best(part, limit) for part in parts]

    def rows(self, keys: Keys, dim: int) -> UnitRows:
        """The stored rows of these ascending, unique keys, bit for bit; CorruptIndex when the server lacks one."""
        found = np.empty((len(keys), dim), np.float32)
        for part in _parts(len(keys), dim):
            wanted = keys[part]
            with _translated(self.target):
                answer = self.client.query(
                    self.name,
                    ids=wanted.tolist(),
                    output_fields=[_KEY, _VECTOR],
                    consistency_level="Session",
                    timeout=self.timeout,
                )
            stored = {int(row[_KEY]): row[_VECTOR] for row in answer}
            if len(stored) != len(wanted) or not all(len(row) == dim for row in stored.values()):
                raise CorruptIndex(
                    f"Milvus collection {self.name} has {len(stored)} of {len(wanted)} vectors that were put into it: "
                    "rebuild the index."
                )
            found[part] = [stored[key] for key in wanted.tolist()]
        return found

    def drop(self) -> None:
        """With its aliases; nothing happens when it is not there."""
        with _translated(self.target):
            if not self.client.has_collection(self.name, timeout=self.timeout):
                return
            for alias in self.aliases():
                self.client.drop_alias(alias, timeout=self.timeout)
            self.client.drop_collection(self.name, timeout=self.timeout)

    def aliases(self) -> list[str]:
        with _translated(self.target):
            return list(self.client.list_aliases(self.name, timeout=self.timeout)["aliases"])

    def take(self, alias: str) -> None:
        """Let the alias name this collection from now on: one change in the server, so it always names one."""
        pymilvus = load_pymilvus()
        with _translated(self.target):
            try:
                self.client.alter_alias(self.name, alias, timeout=self.timeout)
            except pymilvus.MilvusException:
                self.client.create_alias(self.name, alias, timeout=self.timeout)


def _parts(count: int, dim: int) -> Iterable[slice]:
    step = max(1, min(_BATCH, _MESSAGE // (4 * dim + 16)))
    return (slice(start, start + step) for start in range(0, count, step))


def _best(parts: list[tuple[Keys, Similarities]], limit: int) -> tuple[Keys, Similarities]:
    keys = np.concatenate([keys for keys, _ in parts])
    sims = np.concatenate([sims for _, sims in parts])
    best = np.argsort(-sims, kind="stable")[:limit]
    return keys[best], sims[best]


@contextmanager
def _translated(target: Target) -> Iterator[None]:
    """The client's errors as ours. They name the server, never what was sent."""
    pymilvus = load_pymilvus()
    import grpc

    where = f"Milvus at {target.address}" if target.address.startswith("//") else "The Milvus Lite file"
    try:
        yield
    except (pymilvus.MilvusException, grpc.RpcError, grpc.FutureTimeoutError, OSError) as error:
        if getattr(error, "code", None) in _NOT_FOUND:
            raise CorruptIndex(f"{where} does not have the collection of this index any more: rebuild it.") from error
        raise StoreError(
            f"{where} is gone or refuses ({type(error).__name__}): check that it runs and takes "
            "PRECEDENT_MILVUS_TOKEN, or rebuild with another index."
        ) from error
