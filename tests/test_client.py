"""The Python client against the real service, and against a server that is busy."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from api.client import BadRequest, Client, NotAllowed, NotOnFile, ServiceBusy
from tests.processes import REPOSITORY, run, serving
from tests.studies import write_pictures


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("client")
    write_pictures(place / "pictures", 5)
    run("index", place / "pictures", home=place / "home")
    return place


def pictures(home: Path) -> list[Path]:
    return sorted(path for path in (home / "pictures").rglob("*") if path.is_file())


def test_a_session(home: Path) -> None:
    first = pictures(home)[0]
    with serving(home / "home", home / "log") as served, Client(str(served.client.base_url)) as client:
        found = client.search([first], k=5)
        assert len(found.hits) == 4 and found.gallery_size == 5  # the very same is on file, and does not find itself
        case_id = found.answer["query"]["case_id"]
        similar = client.similar(case_id, k=4)
        assert [hit.case_id for hit in similar.hits] == [hit.case_id for hit in found.hits]
        assert client.search(case_id=case_id, k=4).hits == similar.hits
        assert client.case(case_id).case_id == case_id
        assert len(client.evidence(case_id=case_id, k=3)["cases"]) == 3
        client.delete(case_id)
        with pytest.raises(NotOnFile, match="No case"):
            client.case(case_id)
        client.add([first])
        assert client.case(case_id).case_id == case_id
        with pytest.raises(BadRequest, match="exactly one"):
            client.search()
        run("keys", "create", "me", home=home / "home")
        with pytest.raises(NotAllowed, match="API key"):
            client.case(case_id)


class Busy(BaseHTTPRequestHandler):
    """Busy twice, then a case that is not there."""

    asked = 0

    def do_GET(self) -> None:
        Busy.asked += 1
        self.send_response(503 if Busy.asked < 3 else 404)
        self.send_header("Retry-After", "0")
        body = b'{"type": "urn:x", "detail": "A sentence."}'
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def busy() -> Iterator[str]:
    Busy.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_it_waits_for_a_busy_service_and_not_for_ever(busy: str) -> None:
    with Client(busy) as client, pytest.raises(NotOnFile, match="A sentence") as raised:
        client.case("x")
    assert (raised.value.status, raised.value.kind, Busy.asked) == (404, "urn:x", 3)
    Busy.asked = 0
    with Client(busy, tries=2) as client, pytest.raises(ServiceBusy):
        client.case("x")
    assert Busy.asked == 2


def test_it_is_light() -> None:
    heavy = {"torch", "numpy", "fastapi", "retrieval", "pyarrow"}
    code = f"import sys, api.client; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
