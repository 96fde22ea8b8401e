"""The app under uvicorn, with the time limits that uvicorn leaves to its users."""

from __future__ import annotations

import asyncio

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from retrieval.settings import Settings

DRAIN_SECONDS = 30  # what is in flight at SIGTERM may take this long


class PacedProtocol(HttpToolsProtocol):
    """HTTP/1.1 that closes connections whose headers never end. The body's pace is ``api.guards.BodyLimit``'s."""

    header_seconds = 15.0  # from connecting, or from a request's first byte, to the end of its headers
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        if self._deadline is None:
            self._arm()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._disarm()
        super().on_headers_complete()

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.header_seconds, self._give_up)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()


def configuration(settings: Settings, *, log_level: str = "warning") -> uvicorn.Config:
    """How uvicorn serves these settings: one process, bounded headers, a drain at the end."""
    from api.app import create_app

    return uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        http=PacedProtocol,
        ws="none",
        lifespan="on",
        log_level=log_level,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def serve(settings: Settings, *, log_level: str = "warning") -> None:
    """Serve until SIGINT or SIGTERM. Raises SystemExit when the port is taken or the app can't start."""
    uvicorn.Server(configuration(settings, log_level=log_level)).run()
