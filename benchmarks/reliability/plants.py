"""Mismatches between index, database and directory, made on purpose: each states what ``verify`` should find of it.

What is planted in an index is in ``forgeries``; what is planted in the database goes past the catalog, with foreign
keys off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.reliability.forgeries import (
    Contents,
    Found,
    Gallery,
    Plant,
    extra,
    forge,
    last_bit,
    later,
    missing,
    other_dim,
    some,
    stated,
    swapped_keys,
    twice,
    values,
)
from retrieval.generations import generations_folder
from retrieval.manifest import MANIFEST_FILE, Manifest


def edited_manifest(gallery: Gallery, rng: np.random.Generator) -> Found:
    path = gallery.live() / MANIFEST_FILE
    text = path.read_text()
    count = Manifest.parse(text.encode(), path.parent.name).facts.count
    path.write_text(text.replace(f'"count": {count}', f'"count": {count - int(rng.integers(1, 9))}'))
    return {"generation-damaged": 1}


def edited_row(gallery: Gallery, rng: np.random.Generator) -> Found:
    live = gallery.catalog.heads().generation
    gallery.sql("UPDATE generations SET size = size + 1 WHERE name = ?", [(live,)])
    return {"generation-stale": 1}


def foreign_files(gallery: Gallery, rng: np.random.Generator) -> Found:
    count = int(rng.integers(1, 6))
    for n in range(count):
        (generations_folder(gallery.home) / f"notes-{n}.txt").write_text("not ours")
    return {"foreign-files": count}


def _stored(make: Callable[[int], bytes]) -> Plant:
    """Some stored vectors overwritten."""

    def plant(gallery: Gallery, rng: np.random.Generator) -> Found:
        dim, keys = gallery.catalog.embedded_with().dim, gallery.keys()
        at = some(rng, len(keys))
        spoilt = [(make(dim), int(key)) for key in keys[at]]
        gallery.sql("UPDATE embeddings SET vector = ? WHERE key = ?", spoilt)
        return {"unfit-vectors": len(at)}

    return plant


def _overwritten(statement: str, *found: str) -> Plant:
    """Rows of some indexed cases changed or removed; ``found``: checks that each of them fails."""

    def plant(gallery: Gallery, rng: np.random.Generator) -> Found:
        keys = gallery.indexed()
        at = some(rng, len(keys))
        gallery.sql(statement, [(int(key),) for key in keys[at]])
        return dict.fromkeys(found, len(at))

    return plant


def undeleted(gallery: Gallery, rng: np.random.Generator) -> Found:
    keys = gallery.indexed()
    at, last = some(rng, len(keys)), gallery.catalog.heads().last_tombstone
    gallery.sql(
        "INSERT INTO tombstones VALUES (?, ?, '2026-01-01')",
        [(last + n, int(key)) for n, key in enumerate(keys[at], start=1)],
    )
    gallery.sql("UPDATE gallery SET last_tombstone = ?", [(last + len(at),)])
    return {"undeleted": len(at)}


def dangling_labels(gallery: Gallery, rng: np.random.Generator) -> Found:
    count, beyond = int(rng.integers(1, 9)), 10**9
    gallery.sql("INSERT INTO labels VALUES (?, 0, 'finding', 'nodule', NULL)", [(beyond + n,) for n in range(count)])
    return {"dangling-rows": count}


def late_counter(gallery: Gallery, rng: np.random.Generator) -> Found:
    gallery.sql("UPDATE gallery SET last_key = last_key - ?", [(int(rng.integers(1, 9)),)])
    return {"counters": 1}


def _too_long(dim: int) -> bytes:
    return np.full(dim, 1.1 / np.sqrt(dim), np.float32).tobytes()


def _not_a_number(dim: int) -> bytes:
    return np.full(dim, np.nan, np.float32).tobytes()


OTHER = "another-000000000000"
ALONE: dict[str, Plant] = {
    "missing from the index": missing,
    "extra in the index": extra,
    "swapped keys": swapped_keys,
    "last bit of an indexed vector": values(last_bit),
    "NaN in the index": values(lambda rows: np.full_like(rows, np.nan)),
    "unnormalised in the index": values(lambda rows: rows * np.float32(1.5)),
    "key twice in the index": stated("generation-damaged", twice),
    "index of another fingerprint": stated(
        "generation-foreign", lambda index: replace(index, facts=replace(index.facts, fingerprint=OTHER))
    ),
    "index of another dim": stated("generation-foreign", other_dim),
    "index of another metric": stated("generation-damaged", lambda index: replace(index, metric="squared distance")),
    "stale: index of a later database": stated("generation-stale", later),
    "edited manifest": edited_manifest,
    "edited row of a generation": edited_row,
    "foreign files": foreign_files,
    "NaN in the database": _stored(_not_a_number),
    "unnormalised in the database": _stored(_too_long),
    "short vector in the database": _stored(lambda dim: bytes(4 * dim - 4)),
    "lost vectors": _overwritten("DELETE FROM embeddings WHERE key = ?", "no-vector", "index-extra"),
    "vectors of an unknown encoder": _overwritten(
        "UPDATE embeddings SET encoder_id = 77 WHERE key = ?", "unknown-encoder", "no-vector", "index-extra"
    ),
    "lost slices": _overwritten("DELETE FROM slices WHERE key = ?", "no-slices"),
    "short slices": _overwritten("UPDATE slices SET vectors = x'00' WHERE key = ?", "unfit-slices"),
    "undeleted": undeleted,
    "dangling labels": dangling_labels,
    "counter behind": late_counter,
}


def together(gallery: Gallery, rng: np.random.Generator, each: int = 100) -> Found:
    """Mismatches of index, database and directory at once, ``each`` of a kind, no case touched twice."""
    gallery.catalog.delete([f"{key:016d}" for key in gallery.keys()[:each]])  # case ids are keys here
    deleted = np.arange(1, each + 1)
    chosen = np.sort(rng.choice(gallery.keys(), 6 * each, replace=False))
    gone, swapped, nan, long, alive = np.split(rng.permutation(chosen), [each, 3 * each, 4 * each, 5 * each])

    def spoil(index: Contents) -> Contents:
        one, other = np.split(np.searchsorted(index.keys, swapped), 2)
        index.vectors[np.concatenate([one, other])] = index.vectors[np.concatenate([other, one])]
        keep = ~np.isin(index.keys, gone)
        keys = np.concatenate([deleted, index.keys[keep]])
        return replace(index, keys=keys, vectors=np.concatenate([index.vectors[:each], index.vectors[keep]]))

    forge(gallery, spoil)
    dim, last = gallery.catalog.embedded_with().dim, gallery.catalog.heads().last_tombstone
    gallery.sql("UPDATE embeddings SET vector = ? WHERE key = ?", [(_not_a_number(dim), int(key)) for key in nan])
    gallery.sql("UPDATE embeddings SET vector = ? WHERE key = ?", [(_too_long(dim), int(key)) for key in long])
    rows = [(last + n, int(key)) for n, key in enumerate(alive, start=1)]
    gallery.sql("INSERT INTO tombstones VALUES (?, ?, '2026-01-01')", rows)
    gallery.sql("UPDATE gallery SET last_tombstone = ?", [(last + each,)])
    in_index = {"index-missing": each, "index-extra": each, "index-wrong": 2 * each}
    in_database = {"undeleted": each, "unfit-vectors": 2 * each}
    return {**in_index, **in_database, **dangling_labels(gallery, rng), **foreign_files(gallery, rng)}
