"""The Python client against servers that are busy, broken, absent, or something else than Precedent."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from api.client import Client, NotOnFile, ServiceBusy, ServiceProblem, Unreachable
from tests.processes import REPOSITORY
from tests.studies import write_pictures


class Said(BaseHTTPRequestHandler):
    """Answers every request as it is told, and counts them."""

    replies: list[tuple[int, bytes]]
    asked = 0

    def do_GET(self) -> None:
        status, body = self.replies[min(Said.asked, len(self.replies) - 1)]
        Said.asked += 1
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def saying(*replies: tuple[int, bytes]) -> Iterator[str]:
    Said.replies, Said.asked = list(replies), 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Said) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def problem(status: int) -> tuple[int, bytes]:
    return status, f'{{"type": "urn:x", "title": "X", "status": {status}, "detail": "A sentence."}}'.encode()


def test_it_waits_for_a_busy_service_and_not_for_ever(tmp_path: Path) -> None:
    with saying(problem(503), problem(429), problem(404)) as url, Client(url) as client:
        with pytest.raises(NotOnFile, match="A sentence") as raised:
            client.case("x")
        assert (raised.value.status, raised.value.kind, Said.asked) == (404, "urn:x", 3)
    (picture,) = write_pictures(tmp_path, 1)
    with saying(problem(503)) as url, Client(url, tries=2) as client:
        with pytest.raises(ServiceBusy, match="A sentence"):
            client.search(picture)
        assert Said.asked == 2


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        ((200, b"<html>hello</html>"), r"it is no JSON\. Is it Precedent"),
        ((200, b'{"cases": []}'), "Expected 'query', which is absent"),
        ((404, b"<html>nginx</html>"), "status 404 and without a sentence"),
        ((302, b""), "status 302 and without a sentence"),
    ],
)
def test_another_service_at_the_address_is_told(reply: tuple[int, bytes], sentence: str) -> None:
    with saying(reply) as url, Client(url) as client, pytest.raises(ServiceProblem, match=sentence):
        client.evidence(case_id="x")


@pytest.mark.parametrize("body", [b"", b'event: sentence\ndata: {"text": "Alike [1].", "case_ids": []}\n\nevent: do'])
def test_a_stream_that_breaks_off_is_told(body: bytes) -> None:
    with saying((200, body)) as url, Client(url) as client, pytest.raises(Unreachable, match="broke off"):
        list(client.answering(case_id="x"))


def test_nobody_at_the_address_is_told() -> None:
    with saying((200, b"")) as url:
        pass
    with Client(url) as client, pytest.raises(Unreachable, match="can't be reached") as raised:
        client.case("x")
    assert raised.value.status == 0
    with Client("127.0.0.1:8000") as client, pytest.raises(Unreachable, match=r"as http://127\.0\.0\.1:8000"):
        client.case("x")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [({"tries": 0}, "at least 1, got 0"), ({"key": "a\nb"}, "copy it"), ({"key": "ключ"}, "copy it")],
)
def test_what_no_client_can_have_is_told(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Client("http://127.0.0.1:8000", **wrong)


def test_it_is_light() -> None:
    heavy = {"torch", "fastapi", "sqlalchemy", "pydantic", "pyarrow", "sklearn", "scipy", "PIL", "faiss"}
    code = f"import sys, api.client; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
