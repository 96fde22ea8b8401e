"""Untrusted decoding in a pool of limited worker processes.

Whatever a file does to its decoder (crash it, hang it, fill its memory), the outcome is a ``Rejection`` with a reason
and a fresh worker; the rest of the batch never notices. Answers come in the order of the requests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable
from typing import Self

from indexer.limits import Limits
from indexer.sandbox.exchange import Request, ask
from indexer.sandbox.parcels import Answer
from indexer.sandbox.pool import Pool
from indexer.sandbox.streams import in_order, unwatched
from indexer.sandbox.wire import WireError, frame_of, rebuild
from indexer.sources import Frame, Rejection, Scan, Source, Wanted
from retrieval.errors import LimitExceeded, RejectedInput
from retrieval.types import Image

_DIGEST_BYTES = 32


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

    def scan(self, sources: Iterable[Source]) -> Generator[Scan | Rejection]:
        """One answer per source, in order. ``sources`` is consumed only so far ahead (``AHEAD`` a worker and ``BUNCH``
        of ``streams``), so it may be endless."""
        requests = (_to_scan(source) for source in sources)
        return in_order(requests, lambda bunch, watch: ask(self._pool, bunch, watch), _weight, _small, self._workers)

    def read(self, wanted: Iterable[Wanted]) -> Generator[Frame | Rejection]:
        """The frames of each request, in order; a Rejection ends its request.

        A long volume streams: its worker pauses while decoded frames wait for the caller.
        """
        requests = (_to_read(each) for each in wanted)
        return in_order(requests, lambda bunch, watch: ask(self._pool, bunch, watch), _weight, _small, self._workers)

    def scan_one(self, source: Source) -> Scan:
        """As ``scan``; raises RejectedInput or LimitExceeded."""
        ((answer,),) = ask(self._pool, [_to_scan(source)], unwatched)
        if isinstance(answer, Rejection):
            raise _error(answer)
        return answer

    def read_one(self, wanted: Wanted) -> list[Image]:
        """As ``read``; raises RejectedInput or LimitExceeded."""
        images = []
        for answers in ask(self._pool, [_to_read(wanted)], unwatched):
            for answer in answers:
                if isinstance(answer, Rejection):
                    raise _error(answer)
                images.append(answer.image)
        return images


def _to_scan(source: Source) -> Request[Scan]:
    def scan_of(answer: Answer) -> Scan:
        scan = rebuild(Scan, answer.header.get("scan"))
        if any(companion.parent != source.path.parent for companion in scan.companions):
            raise WireError("a companion in another folder")
        return dataclasses.replace(scan, source=source)

    return Request(source, "scan", {"do": "scan"}, scan_of)


def _to_read(wanted: Wanted) -> Request[Frame]:
    def frame(answer: Answer) -> Frame:
        index, image, thumbnail = frame_of(answer.header.get("frame"), answer.blob)
        return Frame(wanted, index, image, _digest(answer.header.get("digest")), thumbnail)

    task = {"do": "read", "format": wanted.format, "frames": wanted.frames, "preview": wanted.preview}
    return Request(wanted.source, "decode", task, frame)


def _digest(told: object) -> bytes:
    try:
        digest = bytes.fromhex(told) if isinstance(told, str) else b""
    except ValueError:
        digest = b""
    if len(digest) != _DIGEST_BYTES:
        raise WireError("a digest that is none")
    return digest


def _small(request: Request[Scan] | Request[Frame]) -> bool:
    """Whether it has one answer at most, so that it may be asked along with others: a scan, or a single frame."""
    frames = request.task.get("frames")
    return request.task["do"] == "scan" or (frames is not None and len(frames) == 1)


def _weight(answer: Scan | Frame | Rejection) -> int:
    return answer.image.pixels.nbytes if isinstance(answer, Frame) else 1


def _error(rejection: Rejection) -> RejectedInput:
    return (LimitExceeded if rejection.limit else RejectedInput)(rejection.stage, rejection.reason)
