"""What a server may send back: so much, within so long. The client library itself knows neither bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MOST_BYTES = 16 * 2**20  # of one reply, as it comes over the wire; 20,000 characters in single letters are some 5 MB


@dataclass(frozen=True, slots=True)
class Bounds:
    """``deadline``: by ``time.monotonic()``, for the whole reply; it is seen when bytes come, and the client's own time
    out ends a wait in which none do.

    ``slow`` and ``garbled``: what is raised when it is not over by then, and when it is over ``MOST_BYTES``.
    """

    deadline: float
    slow: Callable[[], Exception]
    garbled: Callable[[], Exception]

    def check(self) -> None:
        """Raises ``slow`` when the time is over."""
        if time.monotonic() > self.deadline:
            raise self.slow()

    def pieces(self, pieces: Any) -> Iterator[bytes]:
        """The same bytes, as long as both bounds hold."""
        read = 0
        for piece in pieces:
            self.check()
            read += len(piece)
            if read > MOST_BYTES:
                raise self.garbled()
            yield piece


def bounded_client(bounds: Bounds, seconds: float, login: tuple[str, str] | None) -> Any:
    """An HTTP client whose replies keep the bounds. It follows no redirection: what is sent is for one host alone.

    ``login``: user and password for basic authentication; they must not stand in the URL, which is logged.
    """
    import httpx2

    class Bounded(httpx2.SyncByteStream):
        def __init__(self, stream: httpx2.SyncByteStream) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            return bounds.pieces(self._stream)

        def close(self) -> None:
            self._stream.close()

    def bound(response: httpx2.Response) -> None:
        if isinstance(response.stream, httpx2.SyncByteStream):
            response.stream = Bounded(response.stream)

    return httpx2.Client(timeout=seconds, follow_redirects=False, event_hooks={"response": [bound]}, auth=login)
