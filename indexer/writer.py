"""Commits finished cases in the background, several in one transaction, so that encoding never waits for the disk."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from indexer.embedder import Finished
from indexer.patience import Patience
from retrieval.catalog import Outcome
from retrieval.gallery import Gallery
from retrieval.types import EmbeddedCase

BATCH_CASES = 64
BATCH_SECONDS = 0.5  # a case waits no longer than this for company

_Waiting = tuple[Finished, EmbeddedCase]


class Writer:
    """``put`` finished cases; ``told`` hears each outcome, from the writer's thread, after its transaction is durable.

    The first error stops all writing and is raised by the next ``put`` or at its end: nothing is lost in silence.
    ``patience``: with a database server that is away. A batch whose commit was kept although its answer was lost is
    then told as "unchanged".
    """

    def __init__(
        self,
        gallery: Gallery,
        told: Callable[[Finished, Outcome], None],
        patience: Patience,
        *,
        replace: bool = False,
    ) -> None:
        self._gallery = gallery
        self._told = told
        self._patience = patience
        self._replace = replace
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(maxsize=2 * BATCH_CASES)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="precedent-writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what is waiting, even after an interrupt: finished work is kept."""
        if kind is not None:
            self._patience.lose()
        self._queue.put(None)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def put(self, finished: Finished, embedded: EmbeddedCase) -> None:
        """Hand over one case; blocks while the disk is behind."""
        if self._error is not None:
            raise self._error
        self._queue.put((finished, embedded))

    def _run(self) -> None:
        open_ended = True
        while open_ended:
            batch, open_ended = self._collect()
            if batch and self._error is None:
                try:
                    self._commit(batch)
                except BaseException as error:  # noqa: BLE001 - carried to the caller's thread, raised there
                    self._error = error

    def _collect(self) -> tuple[list[_Waiting], bool]:
        """A batch, and whether more may come."""
        first = self._queue.get()
        if first is None:
            return [], False
        batch, until = [first], time.monotonic() + BATCH_SECONDS
        while len(batch) < BATCH_CASES and (left := until - time.monotonic()) > 0:
            try:
                more = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if more is None:
                return batch, False
            batch.append(more)
        return batch, True

    def _commit(self, batch: list[_Waiting]) -> None:
        cases = [embedded for _, embedded in batch]
        outcomes = self._patience.outlast(lambda: self._gallery.add(cases, replace=self._replace))
        for (finished, _), outcome in zip(batch, outcomes, strict=True):
            self._told(finished, outcome)
