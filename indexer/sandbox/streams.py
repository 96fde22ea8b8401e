"""Answers of many requests in the order of the requests, a bounded number of them ahead.

Requests go out in bunches. Each bunch is a stream: a thread fills it, the caller empties it, and the thread pauses
while too many bytes wait.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

from indexer.sandbox.worker import Worker

AHEAD = 32  # requests in flight per worker beyond which no more are begun; the last bunch may pass it by BUNCH
BUNCH = 16  # requests that may be asked together
BUNCH_BYTES = 4 << 20  # and about how many bytes their answers should make, judged by those before them
STREAM_BYTES = 8 << 20  # of one bunch's answers waiting for the caller, beyond which its worker pauses
AHEAD_BYTES = 128 << 20  # of all answers waiting for the caller, beyond which no further request is begun

T = TypeVar("T")
R = TypeVar("R")
Watch = Callable[[Worker | None], None]  # told which worker serves the stream, and None once it is free again
Job = Callable[[Sequence[T], Watch], Generator[list[R]]]


def in_order(
    requests: Iterable[T],
    job: Job[T, R],
    weight: Callable[[R], int],
    small: Callable[[T], bool],
    threads: int,
) -> Generator[R]:
    """Run ``job`` over bunches of the requests on up to ``threads`` threads.

    ``small`` tells which requests may be bunched, ``weight`` is the size of an answer in bytes. Closing the iterator
    ends what is under way at once.
    """
    todo: SimpleQueue[Stream[R] | None] = SimpleQueue()
    flying: deque[Stream[R]] = deque()
    bunches = _Bunches(requests, small, threads)
    started = 0
    try:
        while True:
            while _more(flying, threads) and (bunch := bunches.draw()):
                flying.append(Stream(_bound(job, bunch), weight, len(bunch)))
                todo.put(flying[-1])
                if started < threads:
                    threading.Thread(target=_run_all, args=(todo,), daemon=True, name="sandbox").start()
                    started += 1
            if not flying:
                return
            for answers, size in flying[0].taken():
                bunches.learn(size / len(answers))
                yield from answers
            flying.popleft()
    finally:
        for stream in flying:
            stream.abandon()
        for _ in range(started):
            todo.put(None)


class _Bunches(Generic[T]):
    """Cuts requests into bunches: small at first, so that a few files still keep all workers busy, and of few
    requests where answers are large, so that a bunch does not keep one worker long while the others are through."""

    def __init__(self, requests: Iterable[T], small: Callable[[T], bool], threads: int) -> None:
        self._coming = iter(requests)
        self._small = small
        self._share = 2 * threads
        self._kept: list[T] = []  # drawn, but to be asked alone, after the bunch it ended
        self._begun = 0
        self._bytes = 1.0  # of an answer, the latest counting most

    def learn(self, size: float) -> None:
        self._bytes = (self._bytes + size) / 2

    def draw(self) -> list[T]:
        """The next requests to be asked together; none at the end."""
        bunch, self._kept = self._kept, []
        most = min(BUNCH, self._begun // self._share, int(BUNCH_BYTES / self._bytes))
        if not bunch:
            for request in self._coming:
                if bunch and not self._small(request):
                    self._kept.append(request)
                    break
                bunch.append(request)
                if len(bunch) >= most or not self._small(request):
                    break
        self._begun += len(bunch)
        return bunch


def _more(flying: deque[Stream[R]], threads: int) -> bool:
    """Whether to begin another bunch: always for an idle thread, else while answers and requests ahead are few."""
    if len(flying) < threads:
        return True
    few = sum(stream.requests for stream in flying) < threads * AHEAD
    return few and sum(stream.waiting_bytes for stream in flying) < AHEAD_BYTES


def unwatched(worker: Worker | None) -> None:
    """For a job whose caller drives it directly: closing the job is enough to stop it."""


def _bound(job: Job[T, R], bunch: Sequence[T]) -> Callable[[Watch], Generator[list[R]]]:
    return lambda watch: job(bunch, watch)


def _run_all(todo: SimpleQueue[Stream[R] | None]) -> None:
    while (stream := todo.get()) is not None:
        stream.run()


class _AbandonedError(Exception):
    """The caller no longer wants the stream."""


class Stream(Generic[R]):
    """A bounded queue between the thread that runs one job and the caller that takes its answers, some at a time."""

    def __init__(self, job: Callable[[Watch], Generator[list[R]]], weight: Callable[[R], int], requests: int) -> None:
        self.requests = requests
        self._job = job
        self._weight = weight
        self._changed = threading.Condition()
        self._answers: deque[tuple[list[R], int]] = deque()
        self._waiting_bytes = 0
        self._worker: Worker | None = None
        self._done = self._abandoned = False
        self._error: BaseException | None = None

    @property
    def waiting_bytes(self) -> int:
        """Of answers that the caller has not taken; read without the lock, so a moment old at worst."""
        return self._waiting_bytes

    def run(self) -> None:
        """Fill the stream; called once, by the thread that serves it."""
        try:
            with contextlib.closing(self._job(self._watch)) as parcels:
                for answers in parcels:
                    if answers:
                        self._put(answers)
        except _AbandonedError:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised where the answers are read
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def taken(self) -> Iterator[tuple[list[R], int]]:
        """What came together, and its bytes."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._answers or self._done)
                if not self._answers:
                    break
                answers, size = self._answers.popleft()
                self._waiting_bytes -= size
                self._changed.notify_all()
            yield answers, size
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Stop the job, and the worker it may be waiting for."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
            if self._worker is not None:
                self._worker.kill()

    def _put(self, answers: list[R]) -> None:
        size = sum(map(self._weight, answers))
        with self._changed:
            if self._worker is not None and not self._room_for(size):
                self._worker.pause()
            self._changed.wait_for(lambda: self._abandoned or self._room_for(size))
            if self._abandoned:
                raise _AbandonedError
            self._answers.append((answers, size))
            self._waiting_bytes += size
            self._changed.notify_all()

    def _room_for(self, size: int) -> bool:
        return not self._answers or self._waiting_bytes + size <= STREAM_BYTES

    def _watch(self, worker: Worker | None) -> None:
        with self._changed:
            self._worker = worker
            if self._abandoned:
                raise _AbandonedError
