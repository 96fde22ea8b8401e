"""A PostgreSQL server that restarts, ends our connections, has none left, or is away: told, survived, nothing lost."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml
from sqlalchemy import make_url

from indexer.sandbox import Sandbox
from retrieval.catalog import Catalog
from retrieval.database import WRITER_LOCK, Database
from retrieval.errors import DatabaseAway, StoreError
from retrieval.verify import verify
from tests.databases import BINDING, FINGERPRINT, embedded
from tests.postgres_server import PASSWORD, PostgresServer, postgres_server
from tests.processes import REPOSITORY, Served, run, serving, start
from tests.studies import index_all, open_gallery, write_pictures

SOON = 60.0  # seconds after which a test gives up waiting; what it waits for takes one or two


@pytest.fixture(scope="module")
def one_server() -> Iterator[PostgresServer]:
    with postgres_server() as started:
        yield started


@pytest.fixture
def server(one_server: PostgresServer) -> PostgresServer:
    """Running, with an empty database."""
    one_server.empty()
    return one_server


def until(true: Callable[[], object]) -> None:
    """Wait for it."""
    end = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


def on(server: PostgresServer) -> dict[str, str]:
    return {"PRECEDENT_DATABASE_URL": server.url}


def filled(server: PostgresServer, sandbox: Sandbox, folder: Path, count: int) -> Path:
    """The home of a gallery of so many pictures."""
    write_pictures(folder / "in", count)
    with open_gallery(folder / "home", database_url=server.url) as gallery:
        assert index_all(gallery, sandbox, folder / "in").ok
    return folder / "home"


def check_away(reply: httpx.Response, words: str) -> None:
    """A 503 that says why and when to come back."""
    assert reply.status_code == 503, reply.text
    assert reply.headers["content-type"] == "application/problem+json" and int(reply.headers["retry-after"]) > 0
    assert words in reply.json()["detail"] and PASSWORD not in reply.text


def is_ready(served: Served) -> bool:
    return served.client.get("/readyz").status_code == 200


def test_while_the_server_is_away_the_service_says_so_and_then_goes_on(
    server: PostgresServer, sandbox: Sandbox, tmp_path: Path
) -> None:
    home, picture = filled(server, sandbox, tmp_path, 3), write_pictures(tmp_path / "late", 1, seed=1)[0]
    with serving(home, tmp_path / "log", on(server)) as served:
        client = served.client
        case_id = client.get("/v1/cases").json()["cases"][0]["case_id"]
        before = client.get(f"/v1/cases/{case_id}/similar").json()["hits"]
        new = {"files": ("a.png", picture.read_bytes())}
        server.stop()
        try:
            check_away(client.get("/readyz"), "database server")
            assert client.get("/livez").status_code == 200
            check_away(client.get(f"/v1/cases/{case_id}/similar"), "database server")
            check_away(client.post("/v1/search", files=new), "database server")
            check_away(client.post("/v1/cases", files=new), "database server")
            check_away(client.delete(f"/v1/cases/{case_id}"), "database server")
            check_away(client.post("/v1/rebuilds", json={}), "database server")
        finally:
            server.start()
        until(lambda: is_ready(served))
        assert client.get(f"/v1/cases/{case_id}/similar").json()["hits"] == before
        assert client.post("/v1/cases", files=new).status_code == 201
        with server.full():
            check_away(client.get("/readyz"), "no connection left")
            check_away(client.delete(f"/v1/cases/{case_id}"), "no connection left")
        until(lambda: is_ready(served))
        assert client.delete(f"/v1/cases/{case_id}").status_code == 200
        server.restart()
        assert client.get("/v1/gallery").json()["size"] == 3  # the pool notices and connects again
    assert "Traceback" not in (tmp_path / "log").read_text()


class Clients:
    """Three that write and two that ask, over and over, until told to stop. ``acked``: of each case what was last
    acknowledged; ``odd``: answers that are neither a success nor a 503 with a reason."""

    def __init__(self, address: str, case_ids: list[str], pictures: list[Path]) -> None:
        self.address = address
        self.acked: dict[str, int] = {}
        self.asked: dict[str, int] = {}
        self.added: set[str] = set()
        self.odd: list[str] = []
        self.refused = 0
        self.answered = 0
        self._stop = threading.Event()
        work = [(self._patch, case_id) for case_id in case_ids[:2]] + [(self._ask, case_ids[2])] * 2
        self._threads = [threading.Thread(target=self._over_and_over, args=each) for each in work]
        self._threads.append(threading.Thread(target=self._add, args=(pictures,)))

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(SOON)

    def _over_and_over(self, what: Callable[[httpx.Client, str, int], None], case_id: str) -> None:
        with httpx.Client(base_url=self.address, timeout=SOON) as client:
            n = 0
            while not self._stop.is_set():
                n += 1
                what(client, case_id, n)

    def _succeeded(self, reply: httpx.Response) -> bool:
        if reply.is_success:
            self.answered += 1
            return True
        if reply.status_code == 503 and "retry-after" in reply.headers and "database" in reply.json()["detail"]:
            self.refused += 1
            time.sleep(0.02)
        else:
            self.odd.append(f"{reply.status_code} {reply.text}")
        return False

    def _patch(self, client: httpx.Client, case_id: str, n: int) -> None:
        self.asked[case_id] = n
        if self._succeeded(client.patch(f"/v1/cases/{case_id}", json={"report": f"version {n}"})):
            self.acked[case_id] = n

    def _ask(self, client: httpx.Client, case_id: str, n: int) -> None:
        reply = client.get(f"/v1/cases/{case_id}/similar", params={"k": 3})
        if self._succeeded(reply) and len(reply.json()["hits"]) != 3:
            self.odd.append(f"a search found {len(reply.json()['hits'])} of 3")

    def _add(self, pictures: list[Path]) -> None:
        with httpx.Client(base_url=self.address, timeout=SOON) as client:
            for path in pictures:
                body = {"files": (path.name, path.read_bytes())}
                while not self._stop.is_set():
                    reply = client.post("/v1/cases", files=body)
                    if self._succeeded(reply):  # after a 503 it may be on file already, and is then "unchanged"
                        self.added.add(reply.json()["files"][0]["case_id"])
                        break


def test_under_load_nothing_acknowledged_is_lost_and_nothing_fails_otherwise(
    server: PostgresServer, sandbox: Sandbox, tmp_path: Path
) -> None:
    home, pictures = filled(server, sandbox, tmp_path, 6), write_pictures(tmp_path / "late", 200, seed=2)
    blows: list[Callable[[], object]] = [server.end_connections, server.restart, server.end_connections] * 2
    with serving(home, tmp_path / "log", on(server)) as served:
        case_ids = [case["case_id"] for case in served.client.get("/v1/cases").json()["cases"]]
        with Clients(str(served.client.base_url), case_ids, pictures) as clients:
            for blow in blows:
                done = clients.answered + 10
                until(lambda done=done: clients.answered >= done)  # type: ignore[misc]
                blow()
            server.stop()
            time.sleep(1.0)
            server.start()
            done = clients.answered + 10
            until(lambda: clients.answered >= done)
        assert clients.odd == [] and clients.refused > 0
        for case_id, acked in clients.acked.items():
            kept = int(served.client.get(f"/v1/cases/{case_id}").json()["report"].removeprefix("version "))
            assert acked <= kept <= clients.asked[case_id]
        assert clients.added and all(served.client.get(f"/v1/cases/{each}").is_success for each in clients.added)
    assert "Traceback" not in (tmp_path / "log").read_text()
    with Catalog.open(server.url) as catalog:
        assert verify(catalog, home).ok


def test_a_rebuild_whose_server_went_away_is_told_as_failed_and_the_next_one_runs(
    server: PostgresServer, sandbox: Sandbox, tmp_path: Path
) -> None:
    home = filled(server, sandbox, tmp_path, 3)
    with serving(home, tmp_path / "log", on(server)) as served:
        with closing(server.as_superuser("precedent")) as other:
            job = _held_up(served.client, other)
            server.stop()
        server.start()
        until(lambda: is_ready(served))
        until(lambda: _state(served.client, job) != "running")
        assert _state(served.client, job) == "failed"
        again = served.client.post("/v1/rebuilds", json={})
        assert again.status_code == 202
        until(lambda: _state(served.client, again.json()["id"]) == "done")
    assert "Traceback" not in (tmp_path / "log").read_text()


def _held_up(client: httpx.Client, other: psycopg.Connection[Any]) -> int:
    """A rebuild that is under way and can't write, since ``other`` holds the writer lock; the id of its job."""
    for _ in range(20):
        job = client.post("/v1/rebuilds", json={}).json()["id"]
        other.execute("SELECT pg_advisory_lock(%s)", (WRITER_LOCK,))
        if _state(client, job) == "running":
            return int(job)
        other.execute("SELECT pg_advisory_unlock(%s)", (WRITER_LOCK,))
    raise AssertionError("no rebuild was caught at work")


def _state(client: httpx.Client, job: int) -> str:
    return str(client.get(f"/v1/rebuilds/{job}").json()["state"])


def indexing(server: PostgresServer, folder: Path, count: int) -> subprocess.Popen[str]:
    """``precedent index`` of so many pictures, some of which are on file when this returns and some are not."""
    process = start("index", folder, "--json", home=folder.parent / "home", extra=on(server))
    with server.as_superuser("precedent") as connection:
        until(lambda: process.poll() is not None or 0 < on_file(connection) < count)
    assert process.poll() is None, process.communicate()
    return process


def on_file(connection: psycopg.Connection[Any]) -> int:
    if connection.execute("SELECT to_regclass('cases')").fetchone() == (None,):
        return 0
    row = connection.execute("SELECT count(*) FROM cases").fetchone()
    return row[0] if row else 0


PICTURES = 200


def test_indexing_outlasts_a_server_that_is_away_for_some_seconds(server: PostgresServer, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", PICTURES)
    process = indexing(server, tmp_path / "in", PICTURES)
    server.stop()
    time.sleep(2.0)
    server.start()
    out, errors = process.communicate(timeout=SOON)
    assert process.returncode == 0, errors
    cases = json.loads(out)["cases"]
    assert cases["added"] + cases["unchanged"] == PICTURES  # unchanged: kept, though the answer was lost
    assert "Trying again" in errors and "Traceback" not in errors and PASSWORD not in errors
    with Catalog.open(server.url) as catalog:
        assert catalog.count() == PICTURES and verify(catalog, tmp_path / "home").ok


def test_indexing_that_waits_for_the_server_can_be_interrupted_and_resumed(
    server: PostgresServer, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "in", PICTURES)
    process = indexing(server, tmp_path / "in", PICTURES)
    server.stop()
    try:
        assert process.stderr is not None
        told = process.stderr.readline()
        assert "Trying again" in told
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SOON)
        assert process.returncode == 130 and "Traceback" not in errors
    finally:
        server.start()
    with Catalog.open(server.url) as catalog:
        kept = catalog.count()
    done = run("index", tmp_path / "in", "--json", home=tmp_path / "home", extra=on(server))
    cases = json.loads(done.stdout)["cases"]
    assert 0 < kept < PICTURES and (cases["added"], cases["unchanged"]) == (PICTURES - kept, kept)


def test_patience_ends_with_the_sentence_and_the_next_run_goes_on(
    server: PostgresServer, sandbox: Sandbox, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "in", 4)
    with open_gallery(tmp_path / "home", database_url=server.url) as gallery:
        server.stop()
        try:
            with pytest.raises(DatabaseAway, match="database server can't be reached"):
                index_all(gallery, sandbox, tmp_path / "in", patience=0.5)
        finally:
            server.start()
        assert index_all(gallery, sandbox, tmp_path / "in", patience=0.5).cases == {"added": 4}


@pytest.mark.parametrize("blow", ["end_connections", "restart", "stop"])
def test_a_connection_lost_before_the_commit_keeps_nothing(server: PostgresServer, blow: str) -> None:
    with Catalog.open(server.url, create=True) as catalog:
        catalog.bind(BINDING)
        catalog.commit([embedded("a")], fingerprint=FINGERPRINT)
        with pytest.raises(DatabaseAway, match="database server"), catalog.database.write() as connection:
            connection.exec_driver_sql("DELETE FROM cases")
            getattr(server, blow)()  # the commit is the next statement
        if blow == "stop":
            server.start()
        assert catalog.count() == 1
        catalog.delete(["a"])
        assert catalog.count() == 0


def test_a_server_that_does_not_answer_is_not_waited_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        port = silent.getsockname()[1]
        database = Database(f"postgresql://precedent@127.0.0.1:{port}/precedent?connect_timeout=2")
        with pytest.raises(DatabaseAway, match="can't be reached"), database.read():
            pass
        database.close()


def test_a_wrong_password_or_database_is_not_told_as_a_server_that_is_away(server: PostgresServer) -> None:
    for wrong in (server.url.replace(PASSWORD, "another"), server.url + "_of_nobody"):
        database = Database(wrong)
        with pytest.raises(StoreError, match="does not let us in") as told, database.read():
            pass
        assert not isinstance(told.value, DatabaseAway) and "another" not in str(told.value)
        database.close()


def test_the_url_and_the_health_check_of_the_compose_file_fit_a_server_with_a_password(server: PostgresServer) -> None:
    """As far as can be told without an engine for containers."""
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    place = make_url(server.url)
    stated = services["precedent-postgres"]["environment"]["PRECEDENT_DATABASE_URL"]
    url = stated.replace("${POSTGRES_PASSWORD:-}", PASSWORD).replace("@postgres/", f"@{place.host}:{place.port}/")
    assert url == server.url
    with Catalog.open(url, create=True) as catalog:
        assert catalog.count() == 0
    how, program, *arguments = services["postgres"]["healthcheck"]["test"]
    assert (how, program) == ("CMD", "pg_isready")
    assert server.is_ready(*arguments)
    server.stop()
    try:
        assert not server.is_ready(*arguments)
    finally:
        server.start()
