"""Indexes that disagree with the database under right hashes, so that only a comparison of contents can tell.

Each plant publishes one, and states what ``verify`` should find of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval.catalog import Catalog
from retrieval.generations import generations_folder, publishing, write
from retrieval.indexes.rows import KEYS_FILE, VECTORS_FILE
from retrieval.manifest import MANIFEST_FILE, METRIC, Facts
from retrieval.types import Keys, UnitRows


@dataclass(frozen=True, slots=True)
class Gallery:
    """A catalog in SQLite and the data directory it is in."""

    catalog: Catalog
    home: Path

    def sql(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        with closing(sqlite3.connect(self.home / "catalog.sqlite3", timeout=60)) as database, database:
            database.executemany(statement, rows)

    def keys(self) -> Keys:
        """Of every case, ascending."""
        with closing(sqlite3.connect(self.home / "catalog.sqlite3", timeout=60)) as database:
            found = database.execute("SELECT key FROM cases ORDER BY key").fetchall()
        return np.array([row[0] for row in found], np.int64)

    def indexed(self) -> Keys:
        """Of the cases that the live generation holds."""
        last = next(row.last_key for row in self.catalog.generations() if row.state == "live")
        keys = self.keys()
        return keys[keys <= last]

    def live(self) -> Path:
        return generations_folder(self.home) / self.catalog.heads().generation


Found = dict[str, int]  # what verify should find: counts by the names of its checks
Plant = Callable[[Gallery, np.random.Generator], Found]


@dataclass(slots=True)
class Contents:
    """An exact index before it is written, to be spoilt."""

    keys: Keys
    vectors: UnitRows
    facts: Facts
    metric: str = METRIC


def forge(gallery: Gallery, spoil: Callable[[Contents], Contents]) -> None:
    """Publish an exact index of everything on file, spoilt, under right hashes."""
    heads, root = gallery.catalog.heads(), generations_folder(gallery.home)
    binding = gallery.catalog.embedded_with()
    pieces = list(gallery.catalog.vectors(0))
    keys, vectors = np.concatenate([piece[0] for piece in pieces]), np.concatenate([piece[1] for piece in pieces])
    facts = Facts("exact", "", binding.dim, binding.fingerprint, len(keys), heads.last_key, heads.last_tombstone)
    forged = spoil(Contents(keys, vectors, facts))

    def fill(directory: Path) -> Facts:
        np.save(directory / KEYS_FILE, forged.keys)
        np.save(directory / VECTORS_FILE, forged.vectors)
        return replace(forged.facts, count=len(forged.keys))

    with publishing(root):
        manifest = replace(write(root, fill), metric=forged.metric)
        (root / manifest.name / MANIFEST_FILE).write_bytes(manifest.to_bytes())
        facts = manifest.facts
        gallery.catalog.publish_generation(
            manifest.name, manifest.sha256, facts.last_key, facts.last_tombstone, "exact", facts.count
        )


def some(rng: np.random.Generator, of: int, most: int = 9) -> npt.NDArray[np.intp]:
    """1 to ``most`` different positions, ascending."""
    return np.sort(rng.choice(of, int(rng.integers(1, most + 1)), replace=False))


def missing(gallery: Gallery, rng: np.random.Generator) -> Found:
    lost = 0

    def spoil(index: Contents) -> Contents:
        nonlocal lost
        at = some(rng, len(index.keys))
        lost = len(at)
        return replace(index, keys=np.delete(index.keys, at), vectors=np.delete(index.vectors, at, axis=0))

    forge(gallery, spoil)
    return {"index-missing": lost}


def extra(gallery: Gallery, rng: np.random.Generator) -> Found:
    """Deleted vectors that no tombstone will take out again: what a stale generation would hold."""
    held = 0

    def spoil(index: Contents) -> Contents:
        nonlocal held
        free = np.setdiff1d(np.arange(1, index.keys[-1]), index.keys)
        more = free[some(rng, len(free), 3)]
        held = len(more)
        at = np.searchsorted(index.keys, more)
        keys, vectors = np.insert(index.keys, at, more), np.insert(index.vectors, at, index.vectors[0], axis=0)
        return replace(index, keys=keys, vectors=vectors)

    forge(gallery, spoil)
    return {"index-extra": held}


def swapped_keys(gallery: Gallery, rng: np.random.Generator) -> Found:
    def spoil(index: Contents) -> Contents:
        one, other = rng.choice(len(index.keys), 2, replace=False)
        index.vectors[[one, other]] = index.vectors[[other, one]]
        return index

    forge(gallery, spoil)
    return {"index-wrong": 2}


def values(change: Callable[[UnitRows], npt.NDArray[np.float32]]) -> Plant:
    """Some rows of the index changed, whatever they are then."""

    def plant(gallery: Gallery, rng: np.random.Generator) -> Found:
        changed = 0

        def spoil(index: Contents) -> Contents:
            nonlocal changed
            at = some(rng, len(index.keys))
            changed = len(at)
            index.vectors[at] = change(index.vectors[at])
            return index

        forge(gallery, spoil)
        return {"index-wrong": changed}

    return plant


def last_bit(rows: UnitRows) -> npt.NDArray[np.float32]:
    rows[:, 0] = np.nextafter(rows[:, 0], np.float32(2))
    return rows


def stated(found: str, change: Callable[[Contents], Contents]) -> Plant:
    """Something else is stated of the index."""

    def plant(gallery: Gallery, rng: np.random.Generator) -> Found:
        forge(gallery, change)
        return {found: 1}

    return plant


def other_dim(index: Contents) -> Contents:
    narrow = index.vectors[:, :-2]
    unit = (narrow / np.linalg.norm(narrow, axis=1, keepdims=True)).astype(np.float32)
    return replace(index, vectors=np.ascontiguousarray(unit), facts=replace(index.facts, dim=index.facts.dim - 2))


def later(index: Contents) -> Contents:
    return replace(index, facts=replace(index.facts, last_key=index.facts.last_key + 5))


def twice(index: Contents) -> Contents:
    return replace(index, keys=np.insert(index.keys, 9, index.keys[9]), vectors=np.insert(index.vectors, 9, 0, axis=0))
