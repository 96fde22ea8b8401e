"""The index as it is now: the live generation, the exact delta of what came since, and the tombstones.

Every process replays the catalog by key, so each reads its own and the others' writes. Searching threads never lock:
they work on an immutable ``Snapshot`` that ``refresh`` replaces in one assignment.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval.errors import CorruptIndex, EncoderChanged, StoreError
from retrieval.generations import generations_folder, open_generation, stamp
from retrieval.heads import Heads
from retrieval.indexes import scan
from retrieval.indexes.base import VectorIndex
from retrieval.indexes.exact import ExactIndex
from retrieval.indexes.rows import Rows
from retrieval.planner import OVERFETCH, Plan, combine
from retrieval.replay import VectorSource, live_space, replay
from retrieval.space import Space
from retrieval.types import Keys, Similarities, UnitRows

NO_KEYS: Keys = np.empty(0, np.int64)
SCORED = 8192  # vectors copied together when everything is scored

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the gallery's vectors; never changes. ``base``: the generation's index, or None.

    ``space``: where base and delta lie and queries must be placed. It belongs to ``heads.generation``, also when that
    is damaged and all vectors are in the delta.

    ``base_dead`` and ``delta_dead``: deleted keys that are still in there, sorted. ``tombstone``: the last one applied.
    ``stamp``: of the generation's files, from before they were checked.
    """

    heads: Heads
    base: VectorIndex | None
    delta: ExactIndex
    base_dead: Keys
    delta_dead: Keys
    tombstone: int
    space: Space
    damaged: str = ""
    stamp: tuple[tuple[str, int, int, int], ...] = ()

    def __len__(self) -> int:
        base = 0 if self.base is None else len(self.base) - len(self.base_dead)
        return base + len(self.delta) - len(self.delta_dead)

    @property
    def generation(self) -> str:
        """The live generation's name; "" when there is none or it is damaged."""
        return "" if self.base is None else self.heads.generation

    def search(
        self, queries: UnitRows, k: int, allowed: Keys | None = None, excluded: Keys = NO_KEYS
    ) -> tuple[Keys, Similarities, Plan]:
        """Keys int64 [q, k], similarities float32 [q, k], best first, ties by key, padded with -1 and -inf; the plan.

        ``allowed``: only these keys (sorted, unique); ``excluded``: none of these. Both cost no recall.
        """
        excluded = np.unique(np.asarray(excluded, dtype=np.int64))
        parts = [_Part(self.delta, self.delta_dead)]
        if self.base is not None:
            parts.insert(0, _Part(self.base, self.base_dead))
        answers = [part.search(queries, k, allowed, excluded) for part in parts]
        keys, sims = scan.merge([(found, scores) for found, scores, _ in answers], k)
        plans = [plan if len(part.index) else None for part, (_, _, plan) in zip(parts, answers, strict=True)]
        return keys, sims, combine(plans[0], plans[-1] if len(plans) > 1 else None)

    def score(
        self, queries: UnitRows, allowed: Keys | None = None, excluded: Keys = NO_KEYS
    ) -> tuple[Keys, Similarities]:
        """Everything that may be returned, ascending int64 [n], with its exact similarities, float32 [q, n].

        Reads every such vector once, whatever the index; ``allowed`` and ``excluded`` as in ``search``.
        """
        parts = [_Part(self.delta, self.delta_dead)]
        if self.base is not None:
            parts.insert(0, _Part(self.base, self.base_dead))
        scored = [part.score(queries, allowed, excluded) for part in parts]
        keys = np.concatenate([found for found, _ in scored])
        order = np.argsort(keys)
        return keys[order], np.concatenate([sims for _, sims in scored], axis=1)[:, order]


@dataclass(frozen=True, slots=True)
class _Part:
    """One index of a snapshot with the deleted keys that it still holds."""

    index: VectorIndex
    dead: Keys

    def score(self, queries: UnitRows, allowed: Keys | None, excluded: Keys) -> tuple[Keys, Similarities]:
        keys = self.index.keys()
        if allowed is not None:
            keys = keys[_member(keys, np.unique(allowed))]
        keys = keys[~_member(keys, _union(self.dead, np.unique(excluded)))]
        sims = np.empty((len(queries), len(keys)), np.float32)
        for start in range(0, len(keys), SCORED):
            block = slice(start, start + SCORED)
            rows = self.index.vectors(keys[block])
            for n, query in enumerate(queries):
                sims[n, block] = scan.similarities(query, rows)
        return keys, sims

    def search(
        self, queries: UnitRows, k: int, allowed: Keys | None, excluded: Keys
    ) -> tuple[Keys, Similarities, Plan]:
        dropped = _union(self.dead, excluded)
        if allowed is None and len(dropped) > OVERFETCH:
            allowed = self.index.keys()
        if allowed is not None:
            allowed = allowed[_member(allowed, self.index.keys()) & ~_member(allowed, dropped)]
            return *self.index.search(queries, k, allowed), self.index.plan(len(allowed))
        keys, sims = self.index.search(queries, k + len(dropped))
        if len(dropped):
            keys, sims = _drop(keys, sims, dropped)
        return keys[:, :k], sims[:, :k], self.index.plan()


class LiveIndex:
    """Keeps a snapshot in step with the catalog. ``home`` is the data directory; safe to use from several threads.

    ``dim`` and ``fingerprint`` are of the stored vectors. Where the live generation has a metric head, base and delta
    hold what it makes of them, and the snapshot says so: both are named by one row and change in one assignment.

    A generation that is damaged, missing or of another encoder is never served, nor one whose files were touched since
    it was opened: its vectors are read from SQL into memory instead, and ``damaged`` says what was wrong.
    """

    def __init__(self, source: VectorSource, home: Path, dim: int, fingerprint: str) -> None:
        self._source = source
        self._root = generations_folder(home)
        self._stored = Space(fingerprint, dim)
        self._refreshing = threading.Lock()
        self._snapshot = _nothing(self._stored)

    @property
    def snapshot(self) -> Snapshot:
        """The state of the last refresh, for several reads that must agree."""
        return self._snapshot

    @property
    def generation(self) -> str:
        return self._snapshot.generation

    @property
    def damaged(self) -> str:
        return self._snapshot.damaged

    @property
    def delta(self) -> int:
        """How many vectors came since the generation."""
        return len(self._snapshot.delta) - len(self._snapshot.delta_dead)

    def __len__(self) -> int:
        return len(self._snapshot)

    def search(
        self, queries: UnitRows, k: int, allowed: Keys | None = None, excluded: Keys = NO_KEYS
    ) -> tuple[Keys, Similarities, Plan]:
        """``Snapshot.search`` on the state of the last refresh."""
        return self._snapshot.search(queries, k, allowed, excluded)

    def refresh(self) -> Snapshot:
        """Catch up with the catalog; one small read when nothing changed. On return every earlier commit is visible.

        EncoderChanged when the gallery was embedded anew: vectors of the two encoders never meet.
        """
        snapshot = self._snapshot
        if self._source.heads() == snapshot.heads and not self._touched(snapshot):
            return snapshot
        with self._refreshing:
            heads, snapshot = self._source.heads(), self._snapshot
            self._check_encoder(heads)
            if self._touched(snapshot):
                snapshot = replace(snapshot, heads=Heads(), base=None)  # opened anew, and found damaged or sound
            if heads != snapshot.heads:
                self._snapshot = self._caught_up(snapshot, heads)
            return self._snapshot

    def _check_encoder(self, heads: Heads) -> None:
        if heads.encoder and heads.encoder != self._stored.fingerprint:
            raise EncoderChanged(
                f"This gallery was embedded anew, with {heads.encoder}, since it was opened with "
                f"{self._stored.fingerprint}: restart this process, so that it works with the new one."
            )

    def _touched(self, snapshot: Snapshot) -> bool:
        """Whether the files that are being searched are no longer those that were checked."""
        return snapshot.base is not None and stamp(self._root, snapshot.heads.generation) != snapshot.stamp

    def _caught_up(self, old: Snapshot, heads: Heads) -> Snapshot:
        if (heads.generation, heads.manifest_sha256) != (old.heads.generation, old.heads.manifest_sha256):
            old = self._start(heads)
        delta = old.delta
        after, upto = old.heads.last_key, heads.last_key
        for keys, vectors in replay(self._source, self._stored, old.space, after, upto):
            delta = delta.extended(keys, vectors, reserve=upto - after)
        numbers, dead = self._source.tombstones(old.tombstone)
        return replace(
            old,
            heads=heads,
            delta=delta,
            base_dead=old.base_dead if old.base is None else _present(old.base, old.base_dead, dead),
            delta_dead=_present(delta, old.delta_dead, dead),
            tombstone=int(numbers[-1]) if len(numbers) else old.tombstone,
        )

    def _start(self, heads: Heads) -> Snapshot:
        """The state a generation was published in, or nothing at all: the rest is replayed from there."""
        space = live_space(self._source, self._stored, heads)
        nothing = _nothing(space)
        if not heads.generation:
            return nothing
        before = stamp(self._root, heads.generation)
        try:
            manifest, index = open_generation(self._root, heads.generation, heads.manifest_sha256)
            facts = manifest.facts
            if (facts.fingerprint, facts.dim) != (space.fingerprint, space.dim):
                raise CorruptIndex(
                    f"Generation {manifest.name} was built for {facts.fingerprint} (dim {facts.dim}), the gallery is "
                    f"bound to {space.fingerprint} (dim {space.dim}): rebuild the index."
                )
        except StoreError as error:
            _log.warning("The index is not served, its vectors are read from the database instead. %s", error)
            return replace(nothing, damaged=str(error))
        return replace(
            nothing,
            heads=Heads(facts.last_key, facts.last_tombstone),
            base=index,
            tombstone=facts.last_tombstone,
            stamp=before,
        )


def _nothing(space: Space) -> Snapshot:
    return Snapshot(Heads(), None, ExactIndex(Rows.empty(space.dim)), NO_KEYS, NO_KEYS, 0, space)


def _present(index: VectorIndex, already: Keys, dead: Keys) -> Keys:
    """``already`` and those of ``dead`` that the index holds, sorted."""
    if not len(dead):
        return already
    return _union(already, np.unique(dead[_member(dead, index.keys())]))


def _union(one: Keys, other: Keys) -> Keys:
    if not len(other):
        return one
    return np.union1d(one, other) if len(one) else other


def _member(keys: Keys, of: Keys) -> npt.NDArray[np.bool_]:
    """For each key whether it is in ``of`` (sorted)."""
    if not len(of):
        return np.zeros(len(keys), bool)
    found: npt.NDArray[np.bool_] = of[np.minimum(np.searchsorted(of, keys), len(of) - 1)] == keys
    return found


def _drop(keys: Keys, sims: Similarities, dropped: Keys) -> tuple[Keys, Similarities]:
    """Move what is dropped to the end of its row as padding; the order of the rest stays."""
    gone = _member(keys, dropped)
    keys, sims = np.where(gone, scan.NO_KEY, keys), np.where(gone, np.float32(scan.NO_SIMILARITY), sims)
    order = np.argsort(gone, axis=1, kind="stable")
    return np.take_along_axis(keys, order, axis=1), np.take_along_axis(sims, order, axis=1)
