"""Frames in, embedded cases out: batches run across case borders so that the encoder is never half empty."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from indexer.drafts import Draft, without_files
from indexer.sandbox import Sandbox
from indexer.sources import Frame, Rejection, Wanted
from retrieval.encoders.base import BatchingEncoder, Encoder
from retrieval.encoders.pooling import Pooling, pool
from retrieval.types import Case, EmbeddedCase, Embedding, Image, UnitRows

BATCH_FRAMES = 32  # or as many as the encoder runs together, where that is more
BATCH_BYTES = 96 << 20  # frames of a batch, one of which waits while others are encoded: mammograms must not add up
ENCODING = 2  # batches encoded at a time: an encoder is by turns busy in Python and outside it, and so is all else here


@dataclass(frozen=True, slots=True)
class Finished:
    """A case with its vectors, or none when not one frame of it could be decoded. ``failed``: its refused files.

    ``images``: the decoded frames, in order, when they were asked to be kept.
    """

    draft: Draft
    embedded: EmbeddedCase | None
    failed: tuple[Rejection, ...] = ()
    images: tuple[Image, ...] = ()


class Engine(Protocol):
    """What embeds drafts: frame by frame or as volumes, in this process or on a cluster."""

    def run(self, drafts: Iterable[Draft]) -> Generator[Finished]:
        """Every draft comes out once, in order; ``drafts`` is consumed only so far ahead."""
        ...


@dataclass(slots=True)
class _Arrived:
    """One decoded frame of a case: what is left of it once the encoder has seen it."""

    file: int
    digest: bytes
    shape: tuple[int, ...]
    spacing: tuple[float, float] | None
    thumbnail: bytes
    image: Image | None  # only where frames are kept
    row: UnitRows | None = None  # [dim], when the batch has returned


@dataclass(slots=True)
class _Open:
    """A case whose frames are coming in."""

    draft: Draft
    requests: int
    frames: list[_Arrived] = field(default_factory=list)
    failed: dict[int, Rejection] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return self.requests == 0 and (not self.frames or self.frames[-1].row is not None)


@dataclass(slots=True)
class _Request:
    case: _Open
    wanted: Wanted
    file: int
    left: int


@dataclass(frozen=True, slots=True)
class _Encoding:
    """A batch that is being encoded."""

    arrived: list[_Arrived]
    rows: Future[UnitRows]


class Embedder:
    """Decodes in the sandbox, encodes on threads of this process, keeps the order of the drafts."""

    def __init__(self, sandbox: Sandbox, encoder: Encoder, pooling: Pooling, *, keep_images: bool = False) -> None:
        self._sandbox = sandbox
        self._encoder = encoder
        self._pooling = pooling
        self._keep_images = keep_images
        self._open: deque[_Open] = deque()
        self._requests: deque[_Request] = deque()
        self._batch: list[tuple[_Arrived, Image]] = []
        self._batch_bytes = 0
        self._full = BATCH_FRAMES
        self._encoding: deque[_Encoding] = deque()

    def run(self, drafts: Iterable[Draft]) -> Generator[Finished]:
        """Every draft comes out once, in order. Decoding of what follows goes on while a batch is encoded."""
        with (
            ThreadPoolExecutor(ENCODING, thread_name_prefix="encode") as threads,
            closing(self._sandbox.read(self._asked(drafts))) as replies,
        ):
            try:
                for reply in replies:
                    self._take(reply)
                    if len(self._batch) >= self._full or self._batch_bytes >= BATCH_BYTES:
                        self._encode(threads)
                    yield from self._finished()  # not only after a batch: refused files must not add up
                while self._requests:
                    self._answered()
                self._encode(threads)
                while self._encoding:
                    self._encoded()
            finally:
                threads.shutdown(cancel_futures=True)
        yield from self._finished()

    def _asked(self, drafts: Iterable[Draft]) -> Iterator[Wanted]:
        """The requests of all drafts, each noted before it is made, since answers come in the order of requests."""
        for draft in drafts:
            case = _Open(draft, len(draft.wanted))
            self._open.append(case)
            asked = 0
            for wanted in draft.wanted:
                frames = len(wanted.frames or ())
                own = replace(wanted, source=replace(wanted.source))  # a refusal is told by it: cases may share a file
                self._requests.append(_Request(case, own, draft.case.frames[draft.chosen[asked]].file, frames))
                asked += frames
                yield own

    def _take(self, reply: Frame | Rejection) -> None:
        """Note one answer. A file may still be refused after its last frame (a checksum at its end), so a request is
        over only when an answer to a later one arrives."""
        if isinstance(reply, Rejection):
            while self._requests[0].wanted.source is not reply.source:
                self._answered()
            self._requests[0].case.failed[self._requests[0].file] = reply
            return
        while self._requests[0].wanted is not reply.wanted:
            self._answered()
        request = self._requests[0]
        request.left -= 1
        pixels, kept = reply.image.pixels, reply.image if self._keep_images else None
        arrived = _Arrived(request.file, reply.digest, pixels.shape, reply.image.spacing, reply.thumbnail, kept)
        request.case.frames.append(arrived)
        self._batch.append((arrived, reply.image))
        self._batch_bytes += pixels.nbytes

    def _answered(self) -> None:
        self._requests.popleft().case.requests -= 1

    def _encode(self, threads: ThreadPoolExecutor) -> None:
        """Begin to encode what has been gathered, and note what has been encoded meanwhile."""
        while self._encoding and (len(self._encoding) == ENCODING or self._encoding[0].rows.done()):
            self._encoded()
        arrived = [arrived for arrived, _ in self._batch]
        rows = threads.submit(self._encoder.encode, [image for _, image in self._batch])
        self._encoding.append(_Encoding(arrived, rows))
        if isinstance(self._encoder, BatchingEncoder):  # asked each time: its first batch may choose a faster path
            self._full = max(BATCH_FRAMES, self._encoder.batch_frames)
        self._batch, self._batch_bytes = [], 0

    def _encoded(self) -> None:
        """Wait for the oldest batch."""
        batch = self._encoding.popleft()
        for arrived, row in zip(batch.arrived, batch.rows.result(), strict=True):
            arrived.row = row

    def _finished(self) -> Iterator[Finished]:
        while self._open and self._open[0].complete:
            yield self._finish(self._open.popleft())

    def _finish(self, case: _Open) -> Finished:
        frames = [frame for frame in case.frames if frame.file not in case.failed]
        refused = tuple(case.failed.values())
        if not frames:
            return Finished(case.draft, None, refused)
        draft = without_files(case.draft, frozenset(case.failed)) if case.failed else case.draft
        shown = frames[len(frames) // 2]
        rows = np.stack([frame.row for frame in frames if frame.row is not None])
        embedded = EmbeddedCase(
            case=as_decoded(draft.case, [frame.digest for frame in frames], shown.shape, shown.spacing),
            embedding=Embedding(pool(rows, self._pooling), rows, draft.chosen),
            files=draft.files,
            thumbnail=next((frame.thumbnail for frame in frames if frame.thumbnail), b""),
        )
        return Finished(draft, embedded, refused, tuple(frame.image for frame in frames if frame.image))


def as_decoded(
    case: Case, digests: Sequence[bytes], shape: tuple[int, ...], spacing: tuple[float, float] | None
) -> Case:
    """The case with what only its pixels tell: the digest of its frames, and the size and spacing they are shown at."""
    return replace(
        case,
        pixel_sha256=hashlib.sha256(b"".join(digests)).hexdigest(),
        rows=shape[0],
        columns=shape[1],
        spacing=spacing or case.spacing,
    )
