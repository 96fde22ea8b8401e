"""The tools of the Model Context Protocol over streamable HTTP, each request by itself: nothing is held between them.

A session would outlive the key that began it, and a stream would hold the service's end; the tools need neither.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from anyio import to_thread
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.guards import LOOPBACK, is_loopback, log_without_values
from api.problems import Problem, without_paths
from api.service import Opening
from indexer.mcp_extra import tool_server
from retrieval.errors import MissingExtra, PrecedentError
from retrieval.gallery import Gallery
from retrieval.settings import Settings

if TYPE_CHECKING:
    from mcp.server.transport_security import TransportSecuritySettings


class ToolTransport:
    """Answers the requests of ``POST /mcp`` while ``running``; a MissingExtra without the SDK."""

    def __init__(self, opening: Opening, settings: Settings) -> None:
        self._opening = opening
        self._settings = settings
        self._app: ASGIApp | None = None
        self._missing: MissingExtra | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold the SDK's task group open, in the task that enters."""
        try:
            server = await to_thread.run_sync(tool_server, self._opened)
        except MissingExtra as error:
            self._missing = error
            yield
            return
        protection = _protection(self._settings.host)
        server.streamable_http_app(json_response=True, stateless_http=True, transport_security=protection)
        async with server.session_manager.run():
            self._app = server.session_manager.handle_request
            yield
        self._app = None

    def reply(self) -> Response:
        """What answers the request at hand."""
        if self._missing is not None:
            raise self._missing
        if self._app is None:
            raise Problem(503, "The service is starting or stopping.", headers={"Retry-After": "5"})
        return _Handed(self._app)

    @contextmanager
    def _opened(self) -> Iterator[Gallery]:
        """The gallery for one call, in a search's slot; what goes wrong is a sentence without paths."""
        try:
            service = self._opening.service()
            with service.searching.slot():
                yield service.gallery
        except PrecedentError as error:
            raise PrecedentError(without_paths(self._settings.home, str(error))) from error
        except Problem as busy:
            raise PrecedentError(busy.sentence) from busy
        except Exception as error:
            log_without_values("of a tool", error)
            raise PrecedentError("The service failed on this call; its log has the place.") from error


class _Handed(Response):
    """A reply that the SDK writes: it reads the request's body itself, past the same guards as every route's."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _protection(host: str) -> TransportSecuritySettings:
    """The SDK's own check of host and origin, as ``api.guards.SameSite`` checks them for every route.

    Open to the network the service may have any name, and then SameSite alone holds an origin against it.
    """
    from mcp.server.transport_security import TransportSecuritySettings

    names = [f"[{name}]" if ":" in name else name for name in sorted(LOOPBACK | {host})]
    hosts = [each for name in names for each in (name, f"{name}:*")]
    origins = [f"{scheme}://{each}" for scheme in ("http", "https") for each in hosts]
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=is_loopback(host), allowed_hosts=hosts, allowed_origins=origins
    )
