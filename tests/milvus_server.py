"""A real Milvus: the standalone server out of its wheel, on ports of its own.

Its etcd listens on port 2379 whatever it is told, so one runs at a time on a machine. It binds every interface.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.databases import one_at_a_time

_PORTS = (
    "proxy_port", "proxy_internal_port", "etcd_port", "root_coord_port", "query_coord_port", "query_node_port",
    "index_coord_port", "index_node_port", "data_coord_port", "data_node_port",
)  # fmt: skip
_START = """
import signal, socket, sys
from milvus import MilvusServer, MilvusServerConfig

class Config(MilvusServerConfig):
    def try_bind_port(self, port):  # theirs fails on a port that was in use a minute ago
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            return None

folder, *ports = sys.argv[1:]
config = Config(data_dir=folder, **dict(port.split("=") for port in ports))
server = MilvusServer(config)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
try:
    server.start()
    print("started", flush=True)
    while server.server_proc.poll() is None:
        signal.sigtimedwait({signal.SIGUSR1}, 1)
finally:
    server.stop()
"""


class MilvusProcess:
    """``address``: ``//127.0.0.1:port``. ``stop`` ends it, ``start`` brings it back with what it had."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = _free_ports(len(_PORTS))
        self._process: subprocess.Popen[str] | None = None
        self.address = f"//127.0.0.1:{self._ports[0]}"

    def start(self) -> None:
        ports = [f"{name}={port}" for name, port in zip(_PORTS, self._ports, strict=True)]
        with (self._folder / "errors.txt").open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(self._folder), *ports],
                stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        stdout = self._process.stdout
        assert stdout is not None
        assert stdout.readline() == "started\n", (self._folder / "errors.txt").read_text()[-2000:]
        _await_port(self._ports[0])

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=60)
            self._process = None


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _await_port(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("Milvus did not listen within 60 s")


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[MilvusProcess]:
    """A server that runs; what it stored is gone afterwards."""
    pytest.importorskip("pymilvus", reason="needs the extra 'milvus'")
    pytest.importorskip("milvus", reason="needs the extra 'milvus-server'")
    folder_of_one = tempfile.TemporaryDirectory(prefix="precedent-milvus-", ignore_cleanup_errors=True)
    with one_at_a_time("milvus"), folder_of_one as folder:
        process = MilvusProcess(Path(folder))
        try:
            process.start()
            yield process
        finally:
            process.stop()
