"""Untrusted decoding in a pool of limited worker processes.

Whatever a file does to its decoder (crash it, hang it, fill its memory), the outcome is a ``Rejection`` with a reason
and a fresh worker; the rest of the batch never notices. Answers come in the order of the requests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Self, TypeVar

from indexer.limits import Limits
from indexer.sandbox_pool import Pool, WorkerDiedError
from indexer.sandbox_streams import Watch, in_order, unwatched
from indexer.sandbox_wire import WireError, frame_of, rebuild
from indexer.sources import Frame, Rejection, Scan, Source, Wanted
from retrieval.errors import LimitExceeded, RejectedInput
from retrieval.types import Image

AHEAD = 32  # requests in flight per worker, so that a batch of small frames is ready when the encoder asks for it
_MOST_REASON = 500  # characters
R = TypeVar("R")


class Sandbox:
    """Workers that decode. Safe to use from many threads; close it, or use it as a context manager."""

    def __init__(self, workers: int, limits: Limits) -> None:
        self._workers = max(1, workers)
        self._pool = Pool(self._workers, limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, busy or not."""
        self._pool.close()

    def scan(self, sources: Iterable[Source]) -> Iterator[Scan | Rejection]:
        """One answer per source, in order. ``sources`` is consumed only a few ahead, so it may be endless."""
        return in_order(sources, self._scanned, _weight, self._workers, self._workers * AHEAD)

    def read(self, wanted: Iterable[Wanted]) -> Iterator[Frame | Rejection]:
        """The frames of each request, in order; a Rejection ends its request.

        A long volume streams: its worker pauses while decoded frames wait for the caller.
        """
        return in_order(wanted, self._frames, _weight, self._workers, self._workers * AHEAD)

    def scan_one(self, source: Source) -> Scan:
        """As ``scan``; raises RejectedInput or LimitExceeded."""
        (answer,) = self._scanned(source, unwatched)
        if isinstance(answer, Rejection):
            raise _error(answer)
        return answer

    def read_one(self, wanted: Wanted) -> list[Image]:
        """As ``read``; raises RejectedInput or LimitExceeded."""
        images = []
        for answer in self._frames(wanted, unwatched):
            if isinstance(answer, Rejection):
                raise _error(answer)
            images.append(answer.image)
        return images

    def _scanned(self, source: Source, watch: Watch) -> Generator[Scan | Rejection]:
        def scan_of(header: dict[str, Any], _: bytearray) -> Scan:
            scan = rebuild(Scan, header.get("scan"))
            folder = source.path.parent
            if any(companion.parent != folder for companion in scan.companions):
                raise WireError("a companion in another folder")
            return dataclasses.replace(scan, source=source)

        return self._answers({"do": "scan"}, source, scan_of, watch)

    def _frames(self, wanted: Wanted, watch: Watch) -> Generator[Frame | Rejection]:
        def frame(header: dict[str, Any], blob: bytearray) -> Frame:
            return Frame(wanted, *frame_of(header.get("frame"), blob))

        request = {"do": "read", "format": wanted.format, "frames": wanted.frames, "preview": wanted.preview}
        return self._answers(request, wanted.source, frame, watch)

    def _answers(
        self, request: dict[str, Any], source: Source, convert: Callable[[dict[str, Any], bytearray], R], watch: Watch
    ) -> Generator[R | Rejection]:
        """The answers to one request up to its end, the last one a Rejection if it was refused."""
        stage = "decode" if request["do"] == "read" else "scan"
        try:
            with self._pool.worker() as worker:
                watch(worker)
                worker.ask(request, source)
                while (message := worker.answer())[0].get("kind") != "end":
                    yield convert(*message)
                watch(None)
            refused = _refusal(message[0].get("rejected"), source)
        except WorkerDiedError as death:
            refused = Rejection(source, stage, death.reason, self._sha256(source), death.limit)
        except WireError:
            reason = "Decoding gave an answer that does not fit its own description: the file has upset its decoder."
            refused = Rejection(source, stage, reason, self._sha256(source))
        if refused is not None:
            yield refused

    def _sha256(self, source: Source) -> str:
        """Of a file that ended its worker, by another worker; "" when it can't be read."""
        sha256 = ""
        try:
            with self._pool.worker() as worker:
                worker.ask({"do": "digest"}, source)
                while (header := worker.answer()[0]).get("kind") != "end":
                    sha256 = str(header.get("sha256", ""))[:64]
        except WorkerDiedError:
            return ""
        return sha256


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


def _error(rejection: Rejection) -> RejectedInput:
    return (LimitExceeded if rejection.limit else RejectedInput)(rejection.stage, rejection.reason)


def _weight(answer: Scan | Frame | Rejection) -> int:
    return answer.image.pixels.nbytes if isinstance(answer, Frame) else 1
