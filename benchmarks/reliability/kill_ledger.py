"""What a killed writer had been told, what is on file now, and how the two must fit together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, Table, func, select

from benchmarks.reliability.kill_worker import Life, Seen, Swapped, Swapping, Told, Wrote, digest_of_keys
from benchmarks.reliability.moving import (
    Batch,
    Held,
    batch_of,
    content_of,
    digest_of,
    stored_digest,
    versions_after,
)
from retrieval.catalog import Catalog, GenerationRow
from retrieval.errors import CorruptIndex
from retrieval.generations import BUILDING, NAME, generations_folder, read_manifest
from retrieval.heads import Heads
from retrieval.schema import cases, embeddings, files, frames, labels, reports, slices
from retrieval.verify.catalog import PARTS

EACH_HAS = (embeddings, slices, reports, labels, files, frames)  # of every moving case
FAULTS = ("lost", "resurrected", "torn", "orphan", "index", "generation", "refused")


@dataclass(frozen=True, slots=True)
class Found:
    """What is on file beside the ``still`` cases that nobody touches. ``unsound``: names with parts of other contents.

    ``parts``: by table, keys of the rows beyond those of the still cases; ``still``: how many rows these have.
    """

    held: dict[str, Held]
    unsound: tuple[str, ...]
    parts: dict[str, list[int]]
    still: dict[str, int]
    heads: Heads
    generations: list[GenerationRow]


def found_in(catalog: Catalog, still: int, dim: int) -> Found:
    """Read under the writer lock: on a server, what a killed client had sent is done or undone by then."""
    with catalog.database.write() as connection:
        rows = connection.execute(
            select(cases.c.case_id, cases.c.key, cases.c.content_sha256).where(cases.c.key > still)
        ).all()
        versions = {name: int(content.rpartition(" ")[2]) for name, _, content in rows}
        held = {name: Held(key, versions[name]) for name, key, _ in rows}
        digests = _digests(connection, still)
        unsound = [
            name
            for name, key, content in rows
            if content != content_of(name, versions[name]) or digests.get(key) != digest_of(name, versions[name], dim)
        ]
        parts = {table.name: _keys_beyond(connection, table, still) for table in PARTS}
        counts = {table.name: _count_upto(connection, table, still) for table in (cases, embeddings, slices)}
    return Found(held, tuple(unsound), parts, counts, catalog.heads(), catalog.generations())


def _digests(connection: Connection, still: int) -> dict[int, bytes]:
    """By key, of the stored bytes of every case that has all of its parts."""
    rows = connection.execute(
        select(embeddings.c.key, embeddings.c.vector, slices.c.vectors, reports.c.text)
        .join(slices, slices.c.key == embeddings.c.key)
        .join(reports, reports.c.key == embeddings.c.key)
        .where(embeddings.c.key > still)
    )
    return {key: stored_digest(vector, matrix, text) for key, vector, matrix, text in rows}


def _keys_beyond(connection: Connection, table: Table, still: int) -> list[int]:
    return sorted(connection.scalars(select(table.c.key).where(table.c.key > still)))


def _count_upto(connection: Connection, table: Table, still: int) -> int:
    return connection.scalar(select(func.count()).select_from(table).where(table.c.key <= still)) or 0


@dataclass(slots=True)
class Ledger:
    """What must be on file. ``held``: as acknowledged; ``pending``: the batch of which nothing was heard.

    ``live``: the generation last told to be live; ``swapping``: whether another may be by now. ``notes`` counts what
    kills met, ``faults`` what they broke.
    """

    still: int
    live: str
    last_key: int
    held: dict[str, Held] = field(default_factory=dict)
    pending: Batch | None = None
    swapping: bool = False
    operations: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def begin(self, life: Life) -> None:
        self.pending = batch_of(life.seed, life.number, 1, life.names)

    def hear(self, life: Life, told: Told) -> None:
        """Take down what was acknowledged."""
        if isinstance(told, Swapping):
            self.swapping = True
        elif isinstance(told, Swapped):
            self.swapping, self.live = False, told.generation or self.live
            self.notes["swaps" if told.generation else "nothing to roll back to"] += 1
        elif isinstance(told, Wrote):
            self._wrote(batch_of(life.seed, life.number, told.number, life.names), told.keys)
            self.pending = batch_of(life.seed, life.number, told.number + 1, life.names)
            self.notes["batches"] += 1

    def _wrote(self, batch: Batch, keys: tuple[int, ...]) -> None:
        for (name, version), key in zip(batch.puts, keys, strict=True):
            self.operations += self.held.get(name) != Held(key, version)
            self.held[name] = Held(key, version)
            self.last_key = max(self.last_key, key)
        for name in batch.deletes:
            self.operations += self.held.pop(name, None) is not None

    def settle(self, found: Found, home: Path) -> list[str]:
        """What is wrong, in words; after that the ledger is what was found."""
        faults = [*self._case_faults(found), *_part_faults(found, self.still), *self._generation_faults(found, home)]
        self.held, self.last_key, self.live = dict(found.held), found.heads.last_key, found.heads.generation
        self.pending, self.swapping = None, False
        self.faults.update(kind for kind, _ in faults)
        return [f"{kind}: {told}" for kind, told in faults]

    def _case_faults(self, found: Found) -> list[tuple[str, str]]:
        acked = {name: held.version for name, held in self.held.items()}
        now = {name: held.version for name, held in found.held.items()}
        then = versions_after(acked, self.pending or Batch())
        faults = [("torn", f"{name} has parts of another content") for name in found.unsound]
        if now not in (acked, then):
            told = list(_differences(now, acked, then))
            faults += told or [("torn", "a batch is on file in part")]
        elif now != acked:
            self.notes["committed and not told"] += 1
        for name, held in found.held.items():
            same = self.held.get(name)
            if held != same and (acked.get(name) == held.version or held.key <= self.last_key):
                faults.append(("index", f"{name} has key {held.key}, told was {same.key if same else None}"))
        return faults

    def _generation_faults(self, found: Found, home: Path) -> list[tuple[str, str]]:
        live = found.heads.generation
        faults = []
        if live != self.live:
            self.notes["live and not told"] += 1
            if not self.swapping:
                faults.append(("generation", f"{live} is live, told was {self.live}"))
        if [row.name for row in found.generations if row.state == "live"] != [live]:
            faults.append(("generation", f"{live} is not the one live row"))
        root = generations_folder(home)
        for row in found.generations:
            try:
                read_manifest(root, row.name, row.manifest_sha256)
            except CorruptIndex as error:
                faults.append(("generation", str(error)))
        self._note_leftovers(root, {row.name for row in found.generations})
        return faults

    def _note_leftovers(self, root: Path, named: set[str]) -> None:
        there = {path.name for path in root.iterdir()} - named
        self.notes["left while being built or removed"] += any(BUILDING.fullmatch(name) for name in there)
        self.notes["left complete and not named"] += any(NAME.fullmatch(name) for name in there)

    def compare(self, seen: Seen, probes: list[tuple[str, int]]) -> list[str]:
        """What is wrong with the index of a process that has just opened the gallery."""
        keys = np.array([*range(1, self.still + 1), *sorted(held.key for held in self.held.values())], np.int64)
        faults = []
        if seen.twice or seen.count != len(keys) or seen.keys_sha256 != digest_of_keys(keys):
            faults.append(f"{seen.count} keys, {seen.twice} of them twice; {len(keys)} are on file")
        for (name, version), (hits, similarities) in zip(probes, seen.hits, strict=True):
            exact = [key for key, similarity in zip(hits, similarities, strict=True) if similarity > 0.9999]
            held = self.held.get(name)
            wanted = [held.key] if held and held.version == version else []
            if exact != wanted:
                faults.append(f"version {version} of {name} is found under {exact}, on file under {wanted}")
        self.faults["index"] += len(faults)
        return [f"index: {told}" for told in faults]


def _differences(now: dict[str, int], acked: dict[str, int], then: dict[str, int]) -> Iterable[tuple[str, str]]:
    """Cases that are neither as acknowledged nor as the batch in flight would leave them."""
    for name in sorted(now.keys() | acked.keys() | then.keys()):
        is_, was, may = now.get(name), acked.get(name), then.get(name)
        if is_ not in (was, may):
            kind = "resurrected" if was is None else "lost"
            yield kind, f"{name} is at version {is_}, acknowledged was {was}"


def _part_faults(found: Found, still: int) -> Iterable[tuple[str, str]]:
    keys = sorted(held.key for held in found.held.values())
    for name, of_parts in found.parts.items():
        if orphans := set(of_parts) - set(keys):
            yield "orphan", f"{len(orphans)} rows of {name} belong to no case"
    for table in EACH_HAS:
        if found.parts[table.name] != keys:
            yield "orphan", f"{table.name} has not exactly one row of each case"
    for name, count in found.still.items():
        if count != still:
            yield "lost", f"{name} has {count} rows of the cases that nobody touches, expected {still}"
