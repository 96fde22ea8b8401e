"""A server that speaks the streaming chat protocol of OpenAI, as badly as it is told to."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any


@dataclass
class Stub:
    """``says``: pieces of its answer. ``status``: of its reply. ``garbage``: sent in place of events.

    ``drip``: sent again and again, for ever. ``after``: when all is said. ``finish``: why it says that it stopped.
    ``location``: where it sends those who ask. ``left``: set when somebody has gone before it had said all.
    """

    url: str = ""
    says: list[str] = field(default_factory=list)
    status: int = 200
    garbage: bytes = b""
    pause: float = 0.0
    cut_off: bool = False
    drip: bytes = b""
    finish: str = "stop"
    location: str = ""
    after: bytes = b""
    left: Event = field(default_factory=Event)
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def anew(self) -> None:
        """As it was at first, at the same address."""
        self.__dict__.update(Stub(url=self.url).__dict__)


@contextmanager
def answer_server() -> Iterator[Stub]:
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            stub.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            stub.keys.append(self.headers["Authorization"])
            self.send_response(stub.status)
            self.send_header("Content-Type", "text/event-stream" if stub.status == 200 else "application/json")
            if stub.location:
                self.send_header("Location", stub.location)
            self.end_headers()
            try:
                self._reply()
            except OSError:  # the client has had enough
                stub.left.set()

        def _reply(self) -> None:
            while stub.drip:
                self.wfile.write(stub.drip)
                time.sleep(stub.pause)
            if stub.garbage or stub.status != 200:
                self.wfile.write(stub.garbage or b'{"error": {"message": "secret-of-the-server"}}')
                return
            for piece in stub.says:
                self._event({"content": piece}, None)
                time.sleep(stub.pause)
            self.wfile.write(stub.after)
            if not stub.cut_off:
                self._event({}, stub.finish)
                self.wfile.write(b"data: [DONE]\n\n")

        def _event(self, delta: dict[str, str], finish: str | None) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            event = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "stub", "choices": [choice]}
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
