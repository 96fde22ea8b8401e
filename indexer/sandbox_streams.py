"""Answers of many requests in the order of the requests, a bounded number of them ahead.

Each request is a stream: a thread fills it, the caller empties it, and the thread pauses while too many bytes wait.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

from indexer.sandbox_pool import Worker

STREAM_BYTES = 8 << 20  # of one request's answers waiting for the caller, beyond which its worker pauses
AHEAD_BYTES = 128 << 20  # of all answers waiting for the caller, beyond which no further request is begun

T = TypeVar("T")
R = TypeVar("R")
Watch = Callable[[Worker | None], None]  # told which worker serves the stream, and None once it is free again


def in_order(
    requests: Iterable[T],
    job: Callable[[T, Watch], Generator[R]],
    weight: Callable[[R], int],
    threads: int,
    ahead: int,
) -> Iterator[R]:
    """Run ``job`` over the requests on up to ``threads`` threads; at most ``ahead`` requests are in flight.

    ``weight`` is the size of an answer in bytes. Closing the iterator ends what is under way at once.
    """
    todo: SimpleQueue[Stream[R] | None] = SimpleQueue()
    flying: deque[Stream[R]] = deque()
    coming = iter(requests)
    started = 0
    try:
        while True:
            while _more(flying, threads, ahead) and (request := next(coming, None)) is not None:
                flying.append(Stream(_bound(job, request), weight))
                todo.put(flying[-1])
                if started < threads:
                    threading.Thread(target=_run_all, args=(todo,), daemon=True, name="sandbox").start()
                    started += 1
            if not flying:
                return
            yield from flying[0]
            flying.popleft()
    finally:
        for stream in flying:
            stream.abandon()
        for _ in range(started):
            todo.put(None)


def _more(flying: deque[Stream[R]], threads: int, ahead: int) -> bool:
    """Whether to begin another request: always for an idle thread, else while answers and requests ahead are few."""
    if len(flying) < threads:
        return True
    return len(flying) < ahead and sum(stream.waiting_bytes for stream in flying) < AHEAD_BYTES


def unwatched(worker: Worker | None) -> None:
    """For a job whose caller drives it directly: closing the job is enough to stop it."""


def _bound(job: Callable[[T, Watch], Generator[R]], request: T) -> Callable[[Watch], Generator[R]]:
    return lambda watch: job(request, watch)


def _run_all(todo: SimpleQueue[Stream[R] | None]) -> None:
    while (stream := todo.get()) is not None:
        stream.run()


class _AbandonedError(Exception):
    """The caller no longer wants the stream."""


class Stream(Generic[R]):
    """A bounded queue between the thread that runs one job and the caller that iterates over its answers."""

    def __init__(self, job: Callable[[Watch], Generator[R]], weight: Callable[[R], int]) -> None:
        self._job = job
        self._weight = weight
        self._changed = threading.Condition()
        self._answers: deque[R] = deque()
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
            with contextlib.closing(self._job(self._watch)) as answers:
                for answer in answers:
                    self._put(answer)
        except _AbandonedError:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised where the answers are read
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def __iter__(self) -> Iterator[R]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._answers or self._done)
                if not self._answers:
                    break
                answer = self._answers.popleft()
                self._waiting_bytes -= self._weight(answer)
                self._changed.notify_all()
            yield answer
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Stop the job, and the worker it may be waiting for."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
            if self._worker is not None:
                self._worker.kill()

    def _put(self, answer: R) -> None:
        size = self._weight(answer)
        with self._changed:
            if self._worker is not None and not self._room_for(size):
                self._worker.pause()
            self._changed.wait_for(lambda: self._abandoned or self._room_for(size))
            if self._abandoned:
                raise _AbandonedError
            self._answers.append(answer)
            self._waiting_bytes += size
            self._changed.notify_all()

    def _room_for(self, size: int) -> bool:
        return not self._answers or self._waiting_bytes + size <= STREAM_BYTES

    def _watch(self, worker: Worker | None) -> None:
        with self._changed:
            self._worker = worker
            if self._abandoned:
                raise _AbandonedError
