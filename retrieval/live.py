"""The index as it is now: the live generation, the exact delta of what came since, and the tombstones.

Every process replays the catalog by key, so each reads its own and the others' writes. Searching threads work on an
immutable ``Snapshot`` that is replaced in one assignment; they lock only to catch up.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from retrieval.errors import CorruptIndex, EncoderChanged, StoreError
from retrieval.generations import generations_folder, open_generation, stamp
from retrieval.heads import Heads
from retrieval.planner import Plan
from retrieval.replay import VectorSource, live_space, replay
from retrieval.snapshot import NO_KEYS, Snapshot, before_any, present
from retrieval.space import Space
from retrieval.types import Keys, Similarities, UnitRows

OneState = Callable[[], AbstractContextManager[None]]

_log = logging.getLogger(__name__)


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
        self._snapshot = before_any(self._stored)

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
        if self._is_of(self._source.heads(), snapshot):
            return snapshot
        with self._refreshing:
            return self._follow()

    @contextmanager
    def agreeing(self, one_state: OneState) -> Iterator[Snapshot]:
        """As ``refresh``; and what is read within, by this thread, is of the very state that the snapshot is of.

        So a case that is found can be read, and whom a filter selects can be found, whatever others write meanwhile.
        ``one_state`` holds one state of the catalog for as long as it is open.
        """
        with one_state():
            snapshot = self._snapshot
            if self._is_of(self._source.heads(), snapshot):
                yield snapshot
                return
        with ExitStack() as state:
            with self._refreshing:  # begun in here: else another thread might put a later state in between
                state.enter_context(one_state())
                snapshot = self._follow()
            yield snapshot

    def _is_of(self, heads: Heads, snapshot: Snapshot) -> bool:
        return heads == snapshot.heads and not self._touched(snapshot)

    def _follow(self) -> Snapshot:
        """To be called while ``_refreshing``."""
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
            base_dead=old.base_dead if old.base is None else present(old.base, old.base_dead, dead),
            delta_dead=present(delta, old.delta_dead, dead),
            tombstone=int(numbers[-1]) if len(numbers) else old.tombstone,
        )

    def _start(self, heads: Heads) -> Snapshot:
        """The state a generation was published in, or nothing at all: the rest is replayed from there."""
        space = live_space(self._source, self._stored, heads)
        nothing = before_any(space)
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
