"""A reply that is made while it is sent."""

from __future__ import annotations

from collections.abc import Generator

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class ClosingStream(StreamingResponse):
    """Server-sent events from a generator, which is closed when the client has gone and not when it is next collected:
    what it waits for, at a server elsewhere, is then waited for no more."""

    def __init__(self, events: Generator[str, None, None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._events.close()  # no thread is in it: a step that is cancelled is waited for
