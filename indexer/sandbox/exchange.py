"""A bunch of requests put to one worker, and what becomes of them when it dies on the way.

Small requests are asked together, so that their answers come in few messages. Each still has an outcome of its own:
if the worker dies, hangs or talks nonsense, every request of the bunch that has not been answered to its end is asked
again alone. The culprit then fails by itself, with its own reason, and its neighbours are unharmed. A worker may also
be ended from outside (SIGKILL: no memory left, or someone's hand): only a file that loses its worker so twice has
failed. Nothing is answered twice: of a bunch only what has been answered to its end is passed on, and of a request that
is asked again only what has not been.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Generic, TypeVar

from indexer.sandbox.parcels import Answer
from indexer.sandbox.pool import Pool
from indexer.sandbox.streams import Watch
from indexer.sandbox.wire import WireError, rebuild
from indexer.sandbox.worker import WorkerDiedError
from indexer.sources import Rejection, Source

_MOST_REASON = 500  # characters
R = TypeVar("R")


@dataclasses.dataclass(frozen=True, slots=True)
class Request(Generic[R]):
    """What is asked of one source. ``convert`` makes an answer of a message; WireError when it can't."""

    source: Source
    stage: str
    task: dict[str, Any]
    convert: Callable[[Answer], R]

    def on_the_wire(self) -> dict[str, Any]:
        return {"path": str(self.source.path), "member": self.source.member, **self.task}


def ask(pool: Pool, asked: Sequence[Request[R]], watch: Watch, *, again: bool = True) -> Generator[list[R | Rejection]]:
    """The answers to each request in order, a few at a time; the last one is a Rejection if it was refused.

    ``again``: a request whose worker was ended from outside is asked once more.
    """
    left = deque(asked)
    given = 0
    try:
        with pool.worker(str(asked[0].source.path)) as worker:
            watch(worker)
            worker.ask([request.on_the_wire() for request in asked])
            held: list[R] = []
            while True:
                ready = _settled(left, held, worker.answers(), alone=len(asked) == 1)
                if not left:
                    break
                if ready:
                    given += len(ready)
                    yield ready
            watch(None)
    except (WorkerDiedError, WireError) as error:
        failure = error
    else:
        yield ready
        return
    watch(None)  # raises for a caller who has gone, before another worker is taken
    if len(asked) > 1:
        for number, request in enumerate(left):  # the first of them may have been in hand when the worker ended
            yield from ask(pool, [request], watch, again=number > 0)
    elif again and isinstance(failure, WorkerDiedError) and failure.outside:
        yield from _beyond(given, ask(pool, asked, watch, again=False))
    else:
        yield [_blamed(pool, asked[0], failure)]


def _beyond(given: int, parcels: Iterable[list[R | Rejection]]) -> Generator[list[R | Rejection]]:
    """The answers without the first ``given``, which the caller has; a Rejection is passed on wherever it comes."""
    for parcel in parcels:
        fresh = [each for n, each in enumerate(parcel) if n >= given or isinstance(each, Rejection)]
        given = max(0, given - len(parcel))
        if fresh:
            yield fresh


def _settled(left: deque[Request[R]], held: list[R], answers: list[Answer], *, alone: bool) -> list[R | Rejection]:
    """What a parcel makes known for good. Requests that it ends leave ``left``, but only once all of it has been
    checked; answers to one that it does not end are kept in ``held``, unless that request is ``alone``."""
    ended = 0
    ready: list[R | Rejection] = []
    for answer in answers:
        if ended == len(left):
            raise WireError("an answer to nothing")
        request = left[ended]
        if answer.last:
            refused = _refusal(answer.header.get("rejected"), request.source)
            ready += held if refused is None else [*held, refused]
            held.clear()
            ended += 1
        elif held and not alone:  # of such requests none has more than one answer: more must not add up here
            raise WireError("more answers than were asked for")
        else:
            held.append(request.convert(answer))
    if alone:
        ready += held
        held.clear()
    for _ in range(ended):
        left.popleft()
    return ready


def _blamed(pool: Pool, request: Request[Any], failure: WorkerDiedError | WireError) -> Rejection:
    sha256 = _sha256(pool, request.source)
    if isinstance(failure, WorkerDiedError):
        return Rejection(request.source, request.stage, failure.reason, sha256, failure.limit)
    reason = "Decoding gave an answer that does not fit its own description: the file has upset its decoder."
    return Rejection(request.source, request.stage, reason, sha256)


def _sha256(pool: Pool, source: Source) -> str:
    """Of a file that ended its worker, by another worker; "" when it can't be read."""
    digest = Request(source, "scan", {"do": "digest"}, lambda answer: str(answer.header.get("sha256", ""))[:64])
    try:
        with pool.worker() as worker:
            worker.ask([digest.on_the_wire()])
            found: list[str] = []
            left = deque([digest])
            while left:
                found += [each for each in _settled(left, [], worker.answers(), alone=True) if isinstance(each, str)]
    except (WorkerDiedError, WireError):
        return ""
    return found[0] if found else ""


@dataclasses.dataclass(frozen=True, slots=True)
class _Refusal:
    stage: str
    reason: str
    sha256: str
    limit: bool


def _refusal(value: object, source: Source) -> Rejection | None:
    if value is None:
        return None
    told = rebuild(_Refusal, value)
    return Rejection(source, told.stage, told.reason[:_MOST_REASON], told.sha256[:64], told.limit)
