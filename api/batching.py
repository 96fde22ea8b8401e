"""Requests that wait for the encoder are joined into batches, whoever they came from; what may wait is bounded.

One thread runs the encoder. It takes what has waited longest, lingers a few milliseconds for more, and encodes all of
it together: eight clients with one image each cost little more than one. A batch that fails is tried again one by one,
so that no one's input fails another's. What a client no longer wants is dropped before it is encoded.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from api.problems import Problem

T = TypeVar("T")
R = TypeVar("R")

RETRY_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Bounds:
    """``batch``: most pieces encoded together. ``pieces`` and ``bytes``: most that may wait. ``linger``: seconds."""

    batch: int = 16
    pieces: int = 1024
    bytes: int = 512 << 20
    linger: float = 0.004


@dataclass(frozen=True, slots=True)
class Weight:
    """What an input costs: pieces to encode (frames, sentences) and the bytes it holds while it waits."""

    pieces: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T, R]):
    value: T
    weight: Weight
    answer: Future[R] = field(default_factory=Future)


class Batcher(Generic[T, R]):
    """``encode`` gets the values of several callers and gives an answer for each, in order."""

    def __init__(
        self, encode: Callable[[Sequence[T]], Sequence[R]], weigh: Callable[[T], Weight], bounds: Bounds, name: str
    ) -> None:
        self._encode = encode
        self._weigh = weigh
        self._bounds = bounds
        self._waiting: deque[_Waiting[T, R]] = deque()
        self._pieces = 0
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, values: Sequence[T]) -> list[Future[R]]:
        """An answer to come for each value; cancel it when nobody waits for it any more.

        All or none are taken: a 503 problem with Retry-After when there is no room now, 413 when there never will be.
        """
        total = self.check(values)
        new: list[_Waiting[T, R]] = [_Waiting(value, self._weigh(value)) for value in values]
        with self._changed:
            if self._closed:
                raise _stopping()
            if not self._fits(self._pieces + total.pieces, self._bytes + total.bytes):
                raise Problem(
                    503,
                    f"The encoder has {self._pieces} images, slices or texts waiting and takes no more now: try again "
                    "in a few seconds.",
                    headers={"Retry-After": str(RETRY_SECONDS)},
                )
            self._waiting.extend(new)
            self._pieces += total.pieces
            self._bytes += total.bytes
            self._changed.notify()
        return [one.answer for one in new]

    def check(self, values: Sequence[T]) -> Weight:
        """What all of these weigh; a 413 problem when there never will be room for them."""
        weights = [self._weigh(value) for value in values]
        total = Weight(sum(weight.pieces for weight in weights), sum(weight.bytes for weight in weights))
        if not self._fits(total.pieces, total.bytes):
            most = f"{self._bounds.pieces} images, slices or texts and {self._bounds.bytes >> 20} MiB of pixels"
            raise Problem(413, f"The request is more than is encoded at a time ({most}): send it in parts.")
        return total

    def _fits(self, pieces: int, held: int) -> bool:
        return pieces <= self._bounds.pieces and held <= self._bounds.bytes

    def close(self) -> None:
        """Take no more, finish the batch under way, and tell whoever still waits."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        for one in left:
            if one.answer.set_running_or_notify_cancel():
                one.answer.set_exception(_stopping())
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            wanted = [one for one in batch if one.answer.set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)
            with self._changed:  # room is made when the work is done: what is being encoded takes memory too
                self._pieces -= sum(one.weight.pieces for one in batch)
                self._bytes -= sum(one.weight.bytes for one in batch)

    def _next(self) -> list[_Waiting[T, R]]:
        """The next batch; [] when closed. At least one value, however heavy; else no more pieces than a batch has."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._waiting))
            until = time.monotonic() + self._bounds.linger
            while not self._closed and self._pieces < self._bounds.batch:
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            batch: list[_Waiting[T, R]] = []
            pieces = 0
            while self._waiting and (not batch or pieces + self._waiting[0].weight.pieces <= self._bounds.batch):
                batch.append(self._waiting.popleft())
                pieces += batch[-1].weight.pieces
            return batch

    def _answer(self, batch: Sequence[_Waiting[T, R]]) -> None:
        try:
            answers = self._encode([one.value for one in batch])
            if len(answers) != len(batch):
                raise ValueError(f"Expected {len(batch)} answers of the encoder, got {len(answers)}.")
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the answer, never to this thread
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            for one in batch:
                self._answer([one])
            return
        for one, answer in zip(batch, answers, strict=True):
            one.answer.set_result(answer)


def _stopping() -> Problem:
    return Problem(503, "The service is stopping: try again in a few seconds.", headers={"Retry-After": "5"})
