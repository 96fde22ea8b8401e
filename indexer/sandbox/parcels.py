"""Many answers in one message: a worker gathers them, the parent takes them apart again without a copy.

Each message costs the parent a few hand-overs between its threads, which is dear while an encoder keeps the interpreter
busy, so small answers travel together. What a parcel holds is checked as any other message is: it comes from a process
that a hostile file may have taken over.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from typing import Any

from indexer.sandbox.wire import WireError, send_text

PARCEL_BYTES = 2 << 20  # gathered by a worker before they are sent; an answer as large as this is sent at once
PARCEL_SECONDS = 0.1  # or when the oldest has waited as long, so that slow files do not hold up those before them
_ALIGNED = 16  # bytes: where a blob may begin, so that pixels of any type lie as NumPy likes them


class Outbox:
    """The answers of a worker on their way out."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._texts: list[bytes] = []
        self._blobs: list[memoryview | bytes] = []
        self._waiting = 0
        self._since = 0.0

    def put(self, answer: dict[str, Any], *blobs: memoryview | bytes, lasting: bool = True) -> None:
        """Add one answer, its blobs as one; ValueError when a number in it is not finite.

        ``lasting``: the blobs stay as they are. They are copied otherwise, since a reader may use its buffer for the
        next frame.
        """
        size = sum(map(len, blobs))
        text = json.dumps(answer | {"bytes": size}, allow_nan=False, separators=(",", ":")).encode()
        if size >= PARCEL_BYTES:
            self.send()
            send_text(self._channel, _parcel([text], retire=False), *blobs, bytes(-size % _ALIGNED))
            return
        if not self._texts:
            self._since = time.monotonic()
        self._blobs += blobs if lasting else map(bytes, blobs)
        self._blobs.append(bytes(-size % _ALIGNED))
        self._texts.append(text)
        self._waiting += len(text) + size

    @property
    def due(self) -> bool:
        """Whether what has been gathered is enough, or old enough, to be sent."""
        return self._waiting >= PARCEL_BYTES or (self._waiting > 0 and time.monotonic() - self._since >= PARCEL_SECONDS)

    def send(self, *, retire: bool = False) -> None:
        """Send what is waiting, if anything. ``retire``: the worker ends after this."""
        if self._texts:
            send_text(self._channel, _parcel(self._texts, retire=retire), *self._blobs)
            self._texts, self._blobs, self._waiting = [], [], 0


def _parcel(texts: list[bytes], *, retire: bool) -> bytes:
    return b'{"retire":' + (b"true" if retire else b"false") + b',"answers":[' + b",".join(texts) + b"]}"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it came. ``blob`` is a view into its parcel, which lives for as long as any view of it does: that
    is about a MB, or one frame, and both are soon encoded and forgotten."""

    header: dict[str, Any]
    blob: memoryview

    @property
    def last(self) -> bool:
        """Whether it ends its request."""
        return self.header.get("kind") == "end"


def unpacked(header: dict[str, Any], blob: memoryview) -> list[Answer]:
    """The answers in a parcel; WireError when they do not fill it exactly."""
    told = header.get("answers")
    if not isinstance(told, list):
        raise WireError("a parcel without answers")
    answers, start = [], 0
    for each in told:
        size = each.get("bytes") if isinstance(each, dict) else None
        if type(size) is not int or not 0 <= size <= len(blob) - start:
            raise WireError("an answer without its bytes")
        answers.append(Answer(each, blob[start : start + size]))
        start += size + -size % _ALIGNED
    if start != len(blob):
        raise WireError("bytes that belong to no answer")
    return answers
