"""Drafts in, embedded cases out, in order, by way of a Ray cluster that may lose machines meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator

from indexer.cluster.resources import Pool, pool_of
from indexer.cluster.rounds import Round, living_nodes
from indexer.cluster.shards import Board, Drafts, Slot, shards, withdrawn
from indexer.cluster.work import Work
from indexer.drafts import Draft
from indexer.embedder import Finished
from retrieval.gallery import Gallery

SHARDS_AN_ACTOR = 6  # under way or waiting for an earlier one: what bounds the memory of driver and tray
_LOOK_SECONDS = 2.0  # between looks at which machines live
_WAIT_SECONDS = 0.5  # for an answer

_log = logging.getLogger(__name__)


class RayEngine:
    """An ``Engine`` for the gallery on the cluster this process is connected to (``session.connected``).

    ``actors``: how many embed at a time; None, as many as ``resources.pool_of`` finds. ``told``: hears a sentence when
    the cluster changes. Frames are not kept, so it is not for uploads.
    """

    def __init__(
        self, gallery: Gallery, *, actors: int | None = None, told: Callable[[str], None] = _log.warning
    ) -> None:
        self._gallery = gallery
        self._asked = actors
        self._told = told
        self._nodes = living_nodes()
        self._looked = time.monotonic()
        self.pool: Pool = pool_of(self._nodes, actors)

    def run(self, drafts: Iterable[Draft]) -> Generator[Finished]:
        """Every draft comes out once, in order. FingerprintMismatch when a machine has another encoder."""
        coming, board = _Coming(shards(drafts, self.pool.actors)), Board()
        while len(board) or board.add(coming.next()):  # nothing is started where nothing is new
            yield from self._round(coming, board)

    def _round(self, coming: _Coming, board: Board) -> Iterator[Finished]:
        """Until all is answered, or until the machines are others than at its start and what it began is answered."""
        work, most = Work.of(self._gallery, self.pool.cpus), SHARDS_AN_ACTOR * self.pool.actors
        with Round(work, self.pool) as on_cluster:
            for slot in board.unsettled():
                on_cluster.offer(slot)
            changed = False
            while not on_cluster.ended:
                changed = changed or self._has_changed()
                room = not changed and len(board) < most
                if room and (added := board.add(coming.next())):
                    on_cluster.offer(added)
                elif changed or not (coming.more or board.unsettled()):
                    on_cluster.close()
                answered = on_cluster.answered(0 if room and coming.more else _WAIT_SECONDS)
                if answered is not None:
                    self._note(*answered, board, on_cluster)
                yield from board.ready()

    def _note(self, slot: Slot, finished: tuple[Finished, ...] | None, board: Board, on_cluster: Round) -> None:
        """Note an answer. A shard that no actor survives goes out again case by case, to lose no more than that."""
        if finished is not None:
            board.settle(slot, finished)
        elif len(slot.drafts) == 1:
            board.settle(slot, withdrawn(slot.drafts))
        else:
            for single in board.split(slot):
                on_cluster.offer(single)

    def _has_changed(self) -> bool:
        """Whether a machine has gone, or enough have come for more actors; the pool is then planned anew."""
        if time.monotonic() < self._looked + _LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        before, self._nodes = self._nodes, living_nodes()
        gone = {node.id for node in before} - {node.id for node in self._nodes}
        if not gone and (self._asked or before == self._nodes):
            return False
        pool = pool_of(self._nodes, self._asked)
        if not gone and pool.actors <= self.pool.actors:
            return False
        self.pool = pool
        how = f"{len(gone)} gone" if gone else "more have come"
        self._told(f"The machines of the Ray cluster are others now ({how}): going on with {pool.actors} actors.")
        return True


class _Coming:
    """Shards that have not gone out, and whether there may be more."""

    def __init__(self, coming: Iterator[Drafts]) -> None:
        self._coming = coming
        self.more = True

    def next(self) -> Drafts | None:
        shard = next(self._coming, None) if self.more else None
        self.more = shard is not None
        return shard
