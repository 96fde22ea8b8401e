"""What every request passes before the app: an id, headers, a host check, and limits on the body's size and pace.

Plain ASGI, so that a body is checked while it streams, whatever reads it.
"""

from __future__ import annotations

import ipaddress
import logging
import time
import traceback
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import Metrics
from api.problems import Problem, internal, on_problem

log = logging.getLogger("precedent.api")

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
GRACE_SECONDS = 20.0  # a body may take this long plus its size at the slowest pace
SLOWEST_BYTES_PER_SECOND = 16 * 1024
DRAIN_BYTES = 8 << 20  # at least, read and thrown away of a body that is too large, so that the client reads the 413
DRAIN_SECONDS = 2.0

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Envelope:
    """Outermost: gives the request its id, adds the security headers, counts, and turns what is left into a 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["precedent.request_id"] = request_id = str(uuid.uuid4())
        started = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            log_without_values(request_id, error)
            if status:  # the reply is half-way out: only closing the connection tells the truth
                raise
            await internal(Request(scope))(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", None) or "unmatched"
            self.metrics.answered(scope["method"], route, status or 500, time.perf_counter() - started)


def log_without_values(request_id: str, error: Exception) -> None:
    """Type and place only: the message of an unforeseen error may quote a header."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    place = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    log.error("request %s failed with %s at %s", request_id, type(error).__name__, place)


class SameSite:
    """Refuses other web sites: a name that was rebound to this machine, or a form posted from a foreign page."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self.app = app
        self.hosts = hosts  # empty: any

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._refusal(scope)) is not None:
            await on_problem(Request(scope), problem)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.hosts and _hostname(host) not in self.hosts:
            return Problem(421, "This service listens on this machine only: ask for it as 127.0.0.1 or localhost.")
        if scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            return None
        origin = headers.get("origin")
        foreign = headers.get("sec-fetch-site") in {"cross-site", "same-site"}
        if foreign or (origin is not None and urlsplit(origin).netloc != host):
            return Problem(403, "A page of another site may not change or search this gallery.")
        return None


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


class BodyLimit:
    """A body is at most ``limit`` bytes, declared or not, and arrives at a pace.

    Other media than forms: 1 MiB, or what ``large`` says of their path.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit: int,
        grace_seconds: float = GRACE_SECONDS,
        large: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.app = app
        self.limit = limit
        self.grace_seconds = grace_seconds
        self.large = large

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        most = self.limit if form else min(self.limit, self.large.get(scope.get("path", ""), 1 << 20))
        body = _Body(receive, most, self.grace_seconds)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > body.limit:
            await body.drain()
            await on_problem(Request(scope), body.too_large())(scope, receive, send)
            return
        await self.app(scope, body.receive, send)


class _Body:
    """One request's body on its way in."""

    def __init__(self, receive: Receive, limit: int, grace_seconds: float) -> None:
        self._receive = receive
        self.limit = limit
        self._grace = grace_seconds
        self._got = 0
        self._started = time.monotonic()
        self._more = True

    async def receive(self) -> Message:
        if not self._more:
            return await self._receive()
        allowed = self._grace + self._got / SLOWEST_BYTES_PER_SECOND
        with anyio.move_on_after(max(0.0, self._started + allowed - time.monotonic())) as pace:
            message = await self._receive()
        if pace.cancelled_caught:
            self._more = False
            detail = (
                f"The body came slower than {SLOWEST_BYTES_PER_SECOND // 1024} KiB/s: send it again over a faster line."
            )
            raise Problem(408, detail, headers={"Connection": "close"})
        self._count(message)
        if self._got > self.limit:
            await self.drain()
            raise self.too_large()
        return message

    def _count(self, message: Message) -> None:
        self._got += len(message.get("body", b""))
        self._more = message["type"] == "http.request" and message.get("more_body", False)

    async def drain(self) -> None:
        """Throw away a little of what is still coming: a client that is cut off while sending never sees the reply."""
        end = self._got + max(DRAIN_BYTES, self.limit)  # as much as would have been read of a body that fits
        with anyio.move_on_after(DRAIN_SECONDS):
            while self._more and self._got < end:
                self._count(await self._receive())
        self._more = False

    def too_large(self) -> Problem:
        detail = f"The body is over the limit of {self.limit / (1 << 20):g} MiB: send less, or index files on disk."
        return Problem(413, detail, headers={"Connection": "close"})
