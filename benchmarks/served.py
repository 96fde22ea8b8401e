"""``precedent serve`` as a process of its own, and a client that keeps its connection, for benchmarks over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

COMMAND = [sys.executable, "-c", "from indexer.cli import main; main()"]
READY_SECONDS = 120
IDLE_SECONDS = 10.0  # after which a connection is made anew, before the service closes it


class Client:
    """One connection to one service, kept open while it is used. Not for several threads at once."""

    def __init__(self, port: int, seconds: float = 600.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
        self._used = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body. OSError or HTTPException when the connection is refused or breaks."""
        if time.monotonic() - self._used > IDLE_SECONDS:
            self._connection.close()
        self._connection.request(method, path, body, dict(headers or {}))
        reply = self._connection.getresponse()
        content = reply.read()
        self._used = time.monotonic()
        return reply.status, content

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON."""
        status, body = self.ask("GET", path)
        return status, json.loads(body)

    def post(self, path: str, value: object) -> tuple[int, Any]:
        """JSON there and back."""
        status, body = self.ask("POST", path, json.dumps(value).encode(), {"Content-Type": "application/json"})
        return status, json.loads(body)

    def upload(self, name: str, content: bytes) -> tuple[int, Any]:
        """A file to be indexed."""
        rim = "benchmarks-boundary"
        head = f'--{rim}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{rim}--\r\n".encode()
        media = {"Content-Type": f"multipart/form-data; boundary={rim}"}
        status, told = self.ask("POST", "/v1/cases", body, media)
        return status, json.loads(told)


def similar_path(case_id: str, **asked: object) -> str:
    """The address of a case's neighbours."""
    return f"/v1/cases/{quote(case_id, safe='')}/similar?{urlencode(asked)}"


@dataclass(frozen=True, slots=True)
class Service:
    """A running one: where it listens, and its process."""

    port: int
    pid: int


@contextmanager
def served(home: Path, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[Service]:
    """A service of this data directory, ready. Stopped at the end as users do, by SIGTERM.

    One decoding process and one thread of arithmetic. SystemExit when it does not get ready, or left a traceback.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PRECEDENT_")}
    own = {"PRECEDENT_HOME": str(home), "PRECEDENT_WORKERS": "1", "OMP_NUM_THREADS": "1", **(environment or {})}
    with log.open("ab") as told:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", str(port)], stdout=told, stderr=told, env=kept | own, start_new_session=True
        )
    try:
        _await_ready(process, port, log)
        yield Service(port, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if "Traceback" in log.read_text():
        raise SystemExit(f"The service left a traceback in {log}.")


def _await_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"The service ended with exit code {process.returncode}: {log.read_text()[-2000:]}")
        try:
            with Client(port) as client:
                if client.get("/readyz")[0] == 200:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"The service was not ready in {READY_SECONDS} s: {log.read_text()[-2000:]}")
