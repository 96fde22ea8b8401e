"""The app under a real uvicorn on a free port: slow and large bodies, many at once, a clean stop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn

from api.server import PacedProtocol, configuration
from indexer.sandbox import Sandbox
from retrieval.settings import Settings
from tests.api_client import Seeded, parts, seed
from tests.studies import write_pictures

pytestmark = pytest.mark.slow


class Hasty(PacedProtocol):
    """The same limits, reached sooner."""

    header_seconds = 0.5


@dataclass(frozen=True)
class Running:
    port: int
    server: uvicorn.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def running(settings: Settings, protocol: type[PacedProtocol] = PacedProtocol) -> Iterator[Running]:
    config = configuration(settings)
    config.http = protocol
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.02)
        yield Running(listener.getsockname()[1], server)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Seeded:
    return seed(tmp_path_factory.mktemp("server"), sandbox)


@pytest.fixture(scope="module")
def served(seeded: Seeded) -> Iterator[Running]:
    with running(Settings(home=seeded.home, workers=2, max_upload_mb=1), Hasty) as server:
        yield server


def until_closed(connection: socket.socket) -> bytes:
    connection.settimeout(20)
    got = b""
    while piece := connection.recv(65536):
        got += piece
    return got


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: "])
def test_headers_that_never_end_are_closed(served: Running, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(sent)
        assert until_closed(connection) == b""


def test_a_body_past_the_limit_is_answered_413_with_and_without_a_length(served: Running) -> None:
    whole = b"x" * ((1 << 20) + 1)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    declared = httpx.post(f"{served.url}/v1/search", content=whole, headers=headers)
    streamed = httpx.post(f"{served.url}/v1/search", content=iter([whole[:1000], whole[1000:]]), headers=headers)
    for reply in (declared, streamed):
        assert reply.status_code == 413
        assert reply.json()["type"] == "urn:precedent:problem:limit-exceeded"
    assert httpx.get(f"{served.url}/livez").status_code == 200


def test_a_body_broken_off_leaves_nothing(served: Running, seeded: Seeded) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        head = (
            b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: 90000\r\n\r\n"
        )
        connection.sendall(head + b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nxxxx')
        time.sleep(0.2)
    (scratch,) = (seeded.home / "uploads").iterdir()
    for _ in range(200):
        if [path.name for path in scratch.iterdir()] == ["lock"]:
            break
        time.sleep(0.05)
    assert [path.name for path in scratch.iterdir()] == ["lock"]


def test_many_at_once_are_all_answered_and_the_loop_stays_free(served: Running, seeded: Seeded, tmp_path: Path) -> None:
    body = parts(write_pictures(tmp_path, 1, seed=3))

    def ask(client: httpx.Client, n: int) -> httpx.Response:
        if n % 3 == 0:
            return client.post("/v1/search", files=body)
        if n % 3 == 1:
            return client.get(f"/v1/cases/{seeded.series[n % 2]}/similar")
        return client.get(f"/v1/cases/{seeded.series[n % 2]}/image", params={"slice": n % 5})

    def answered(n: int) -> tuple[int, list[str]]:
        """What a client that is told to come back gets in the end."""
        with httpx.Client(base_url=served.url, timeout=60) as client:
            while (reply := ask(client, n)).status_code == 503:
                time.sleep(min(0.2, float(reply.headers["retry-after"])))
        return reply.status_code, [hit["case_id"] for hit in reply.json()["hits"]] if n % 3 < 2 else []

    with ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(answered, n) for n in range(60)]
        lively = [httpx.get(f"{served.url}/livez", timeout=30).status_code for _ in range(10)]
        answers = [answer.result() for answer in asked]
    assert lively == [200] * 10
    assert {status for status, _ in answers} == {200}
    same = {tuple(hits) for n, (_, hits) in enumerate(answers) if n % 3 == 0}
    assert len(same) == 1, "the same question has the same answer"


def test_it_stops_and_starts_again_cleanly(seeded: Seeded) -> None:
    home = seeded.home
    for _ in range(2):
        with running(Settings(home=home, workers=1)) as server:
            assert httpx.get(f"{server.url}/readyz").status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/livez")


def test_the_server_names_neither_itself_nor_its_version(served: Running) -> None:
    headers = httpx.get(f"{served.url}/livez").headers
    assert "server" not in headers
