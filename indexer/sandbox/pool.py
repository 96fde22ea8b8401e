"""Workers handed out: started when first needed, replaced when they die, never more than there may be."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

from indexer.limits import Limits
from indexer.sandbox.template import Template
from indexer.sandbox.worker import Worker
from retrieval.errors import PrecedentError


class Pool:
    """At most ``size`` workers, started when first needed, handed out first come first served."""

    def __init__(self, size: int, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._template: Template | None = None
        self._idle: list[Worker | None] = [None] * size  # the most recently used one is at the end
        self._waiting: deque[Future[Worker | None]] = deque()
        self._closed = False

    @contextlib.contextmanager
    def worker(self, path: str = "") -> Iterator[Worker]:
        """An idle worker, one that has seen ``path`` if there is, or the next one to be given back. After an error
        inside, it is not handed out again."""
        slot = self._take(path)
        worker = None
        try:
            worker = slot if slot is not None and slot.usable else self._start()
            worker.serve(self._lend)
            yield worker
        except BaseException:
            if worker is not None:
                worker.discard()
            raise
        finally:
            slot = worker if worker is not None and worker.usable else None
            if worker is not None and worker.paused:
                self._take_back(slot)
            else:
                self._give_back(slot)

    def close(self) -> None:
        """End every worker, busy or not; whoever waits for one gets a PrecedentError."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            waiting, self._waiting = self._waiting, deque()
        for worker in idle:
            if worker is not None:
                worker.discard()
        for future in waiting:
            future.set_exception(_closed())
        with self._starting:
            if self._template is not None:
                self._template.close()

    def _take(self, path: str) -> Worker | None:
        with self._lock:
            if self._closed:
                raise _closed()
            if self._idle:
                seen = (n for n, worker in enumerate(self._idle) if worker is not None and worker.has_seen(path))
                return self._idle.pop(next(seen, -1))
            future: Future[Worker | None] = Future()
            self._waiting.append(future)
        try:
            return future.result()
        except BaseException:  # Ctrl-C while waiting: the slot that may have come meanwhile goes to the next
            with self._lock:
                came = future not in self._waiting
                if not came:
                    self._waiting.remove(future)
            if came and future.done() and future.exception() is None:
                self._give_back(future.result())
            raise

    def _lend(self) -> None:
        """A worker pauses: let another run meanwhile, or a caller that reads one thing while it scans the next would
        wait for ever for a worker that waits for that caller."""
        with self._lock:
            if self._closed:
                return
            if self._waiting:
                self._waiting.popleft().set_result(None)
            else:
                self._idle.insert(0, None)

    def _take_back(self, slot: Worker | None) -> None:
        """End the loan of a worker that paused: one slot goes, an empty one if there is one, else its own."""
        with self._lock:
            kept = None in self._idle
            if kept:
                self._idle.remove(None)
        if kept:
            self._give_back(slot)
        elif slot is not None:
            slot.discard()

    def _give_back(self, slot: Worker | None) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set_result(slot)
                return
            if not self._closed:
                self._idle.insert(0 if slot is None else len(self._idle), slot)
                return
        if slot is not None:
            slot.discard()

    def _start(self) -> Worker:
        with self._starting:
            if self._closed:
                raise _closed()
            if self._template is not None:
                try:
                    return Worker(self._template, self._limits)
                except OSError:
                    self._template.close()  # killed from outside: start over
            self._template = Template(self._limits)
            return Worker(self._template, self._limits)


def _closed() -> PrecedentError:
    return PrecedentError("The decoding processes have been closed: open a new Sandbox.")
