"""Does the index agree with the database? Every byte, every key and every vector of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval.catalog.types import GenerationRow
from retrieval.errors import StoreError
from retrieval.generations import EMBEDDING_LOCK_FILE, LOCK_FILE, NAME, check_generation, open_generation
from retrieval.heads import Heads
from retrieval.indexes.base import VectorIndex
from retrieval.manifest import Facts, Manifest
from retrieval.replay import VectorSource
from retrieval.space import Space
from retrieval.types import Keys, UnitRows

PROBES = 32  # searches, each of which may go through the whole index


@dataclass(frozen=True, slots=True)
class Opened:
    """The live generation, or why it is not to be used. Both None: there is none, and that is fine."""

    manifest: Manifest | None = None
    index: VectorIndex | None = None
    damage: str = ""


def open_live(root: Path, heads: Heads) -> Opened:
    if not heads.generation:
        return Opened()
    try:
        return Opened(*open_generation(root, heads.generation, heads.manifest_sha256))
    except StoreError as error:
        return Opened(damage=str(error))


def foreign_to(space: Space, manifest: Manifest) -> str:
    """A sentence when the generation is of another encoder or adapter, else ""."""
    facts = manifest.facts
    if (facts.fingerprint, facts.dim) == (space.fingerprint, space.dim):
        return ""
    return (
        f"Generation {manifest.name} was built for {facts.fingerprint} (dim {facts.dim}), the gallery is bound to "
        f"{space.fingerprint} (dim {space.dim})."
    )


def stale(manifest: Manifest, heads: Heads, rows: list[GenerationRow]) -> str:
    """A sentence when manifest, its row and the counters tell different stories, else ""."""
    facts = manifest.facts
    if facts.last_key > heads.last_key or facts.last_tombstone > heads.last_tombstone:
        return (
            f"Generation {manifest.name} knows key {facts.last_key} and tombstone {facts.last_tombstone}, the database "
            f"only {heads.last_key} and {heads.last_tombstone}: one of them is from an older backup."
        )
    row = next((row for row in rows if row.name == manifest.name), None)
    told = (row.last_key, row.last_tombstone, row.count) if row else None
    if told != (facts.last_key, facts.last_tombstone, facts.count):
        return f"The database row of generation {manifest.name} and its manifest state different contents."
    return ""


def damaged_previous(root: Path, rows: list[GenerationRow]) -> list[str]:
    """Names of generations that could not be rolled back to."""
    damaged = []
    for row in rows:
        if row.state == "live":
            continue
        try:
            check_generation(root, row.name, row.manifest_sha256)
        except StoreError:
            damaged.append(row.name)
    return damaged


def strangers(root: Path, rows: list[GenerationRow]) -> list[Path]:
    """What lies in ``generations/`` and belongs to no row: foreign files, leftovers of dead builders."""
    known = {row.name for row in rows if NAME.fullmatch(row.name)} | {LOCK_FILE, EMBEDDING_LOCK_FILE}
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.name not in known or path.is_symlink())


@dataclass(slots=True)
class Comparison:
    """Counts what differs while the vectors of the database stream by, in ascending key order.

    ``space``: where the index has them; its head gives the same bits again, so equal means equal.
    """

    index: VectorIndex
    facts: Facts
    space: Space
    missing: int = 0
    wrong: int = 0
    unfindable: int = 0
    _seen: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self._seen = np.zeros(len(self.index), bool)

    def take(self, keys: Keys, vectors: UnitRows) -> None:
        covered = keys <= self.facts.last_key
        keys, vectors = keys[covered], vectors[covered]
        here = self._mark(keys)
        self.missing += int((~here).sum())
        keys, vectors = keys[here], self.space.place(vectors[here])
        same = (self.index.vectors(keys) == vectors).all(axis=1)
        self.wrong += int((~same).sum())
        self._probe(keys[same], vectors[same])

    def skip(self, keys: Keys) -> None:
        """Keys whose vector in the database is not fit to be compared."""
        self._mark(keys)

    def counts(self, source: VectorSource) -> tuple[int, int, int, int]:
        """(missing, wrong, unfindable, extra) once all have been taken.

        Extra are keys that the database lacks, but for those that tombstones since the generation take out.
        """
        left = self.index.keys()[~self._seen]
        excused = source.tombstones(self.facts.last_tombstone)[1]
        return self.missing, self.wrong, self.unfindable, int((~np.isin(left, excused)).sum())

    def _mark(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Note these keys as known to the database; which of them the index has."""
        stored = self.index.keys()
        at = np.searchsorted(stored, keys)
        here: npt.NDArray[np.bool_] = at < len(stored)
        here[here] = stored[at[here]] == keys[here]
        self._seen[at[here]] = True
        return here

    def _probe(self, keys: Keys, vectors: UnitRows) -> None:
        """A few, evenly spread, must be found by a search: the codes of a compressed index belong to its rows."""
        every = max(1, len(self.index) // PROBES)
        asked = vectors[np.searchsorted(self.index.keys(), keys) % every == 0]
        if len(asked):
            _, similarities = self.index.search(asked, 1)
            self.unfindable += int((similarities[:, 0] < 0.99).sum())
