"""A bound on heavy work: so many at once, so many waiting, the rest is told to come back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from api.problems import Problem


class Capacity:
    """Slots for decoding and embedding. A request past ``running + waiting`` is answered 503 at once."""

    def __init__(self, running: int, waiting: int) -> None:
        self._slots = threading.Semaphore(running)
        self._lock = threading.Lock()
        self._most = running + waiting
        self._inside = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one slot; blocks the calling thread while others work. Never call this on the event loop."""
        with self.place(), self._slots:
            yield

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place among those admitted, without blocking; raises a 503 problem when all are taken."""
        with self._lock:
            if self._inside >= self._most:
                raise Problem(
                    503,
                    f"The service is busy with {self._most} requests of this kind: try again in a few seconds.",
                    headers={"Retry-After": "3"},
                )
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
