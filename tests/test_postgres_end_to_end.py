"""The whole path on a real PostgreSQL server: files, command line, service, several writers, a lost connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from indexer.sandbox import Sandbox
from retrieval.errors import StoreError
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.verify import verify
from tests.databases import postgres_database
from tests.processes import answer, run, serving, start
from tests.studies import contents, index_all, open_gallery, write_pictures, write_series


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    """A database without a gallery."""
    with postgres_database(postgres_url) as made:
        yield made


def on_server(url: str) -> dict[str, str]:
    """The environment that puts the catalog there."""
    return {"PRECEDENT_DATABASE_URL": url}


def end_connections(url: str) -> int:
    """Close every connection to the database from the server's side, as a restart or a firewall does; how many."""
    engine = create_engine(make_url(url).set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        ended = connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": make_url(url).database},
        ).all()
    engine.dispose()
    return len(ended)


def test_a_folder_is_indexed_searched_rebuilt_verified_served_and_deleted(url: str, tmp_path: Path) -> None:
    home, extra = tmp_path / "home", on_server(url)
    pictures = write_pictures(tmp_path / "in", 6)
    write_series(tmp_path / "in", 5, seed=1, patient="A")
    rows = "".join(f"{path.name},{'cyst' if n % 2 else 'mass'},P{n // 2}\n" for n, path in enumerate(pictures))
    (tmp_path / "in" / "labels.csv").write_text("path,finding,patient_id\n" + rows)
    arguments = ("index", tmp_path / "in", "--labels", tmp_path / "in" / "labels.csv")
    report = answer(*arguments, home=home, extra=extra)
    assert report["cases"]["added"] == 7 and report["files"]["failed"] == 0
    assert answer(*arguments, home=home, extra=extra)["cases"]["unchanged"] == 7
    assert not (home / "catalog.sqlite3").exists()
    found = answer("search", pictures[0], "--filter", "label.finding=mass", home=home, extra=extra)
    assert found["gallery_size"] == 7 and len(found["hits"]) == 2  # masses of the two other patients
    generation = answer("rebuild", "--index", "faiss", home=home, extra=extra)["generation"]
    assert answer("verify", home=home, extra=extra)["ok"]
    with serving(home, tmp_path / "log", extra) as served:
        client = served.client
        assert client.get("/readyz").status_code == 200
        assert client.get("/v1/gallery").json()["generation"] == generation
        reply = client.post("/v1/search", files={"files": ("a.png", pictures[1].read_bytes())})
        assert reply.status_code == 200 and reply.json()["hits"]
        gone = reply.json()["hits"][0]["case_id"]
        assert client.delete(f"/v1/cases/{gone}").status_code == 200
        late = write_pictures(tmp_path / "late", 1, seed=1)
        added = client.post("/v1/cases", files={"files": ("b.png", late[0].read_bytes())})
        assert added.status_code == 201
        again = client.post("/v1/search", files={"files": ("a.png", pictures[1].read_bytes())}).json()
        assert gone not in [hit["case_id"] for hit in again["hits"]] and again["gallery_size"] == 7
        assert end_connections(url)
        assert client.get("/v1/cases").status_code == 200  # the pool notices and connects again
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log and (make_url(url).password or "no password") not in log
    assert answer("verify", home=home, extra=extra)["ok"]


def test_two_indexers_at_once_make_the_gallery_of_one(url: str, tmp_path: Path, sandbox: Sandbox) -> None:
    write_pictures(tmp_path / "in", 30)
    write_series(tmp_path / "in", 6, seed=2)
    both = [start("index", tmp_path / "in", "--json", home=tmp_path / "home", extra=on_server(url)) for _ in range(2)]
    reports = []
    for each in both:
        out, errors = each.communicate(timeout=120)
        assert each.returncode == 0, errors
        reports.append(json.loads(out)["cases"])
    assert sum(report["added"] for report in reports) == 31
    assert all(report["added"] + report["unchanged"] == 31 for report in reports)
    with open_gallery(tmp_path / "one") as one, open_gallery(tmp_path / "home", database_url=url) as two:
        index_all(one, sandbox, tmp_path / "in")
        assert contents(one) == contents(two)
        assert verify(two.catalog, tmp_path / "home").ok


def test_a_connection_lost_between_two_operations_is_made_again(url: str, tmp_path: Path, sandbox: Sandbox) -> None:
    write_pictures(tmp_path / "in", 3)
    with open_gallery(tmp_path / "home", database_url=url) as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        case_id = gallery.catalog.list_cases()[0].case_id
        right = gallery.similar_to(case_id).hits
        for _ in range(3):
            assert end_connections(url)
            assert gallery.similar_to(case_id).hits == right
            assert end_connections(url)
            assert index_all(gallery, sandbox, tmp_path / "in").ok


def test_a_connection_lost_within_a_transaction_is_told_and_nothing_is_kept(
    url: str, tmp_path: Path, sandbox: Sandbox
) -> None:
    write_pictures(tmp_path / "in", 3)
    with open_gallery(tmp_path / "home", database_url=url) as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
        before = contents(gallery)
        with (
            pytest.raises(StoreError, match="database server"),
            gallery.catalog.database.write() as connection,
        ):
            connection.execute(text("DELETE FROM cases"))
            end_connections(url)
            connection.execute(text("SELECT 1"))
        assert contents(gallery) == before


def test_no_server_is_a_sentence_without_the_password(tmp_path: Path, url: str) -> None:
    gone = make_url(url).set(database="nowhere", password="s3cret-word").render_as_string(hide_password=False)
    for database in (gone, "postgresql://user:s3cret-word@127.0.0.1:1/nowhere"):
        done = run("stats", home=tmp_path / "home", code=2, extra=on_server(database))
        assert done.stderr.startswith("precedent: ") and len(done.stderr.splitlines()) == 1
        assert "s3cret-word" not in done.stderr + done.stdout
    assert not (tmp_path / "home").exists()


def test_the_key_must_belong_to_the_database(url: str, tmp_path: Path, sandbox: Sandbox) -> None:
    """The database is on a server, the key in the data directory: another directory's is refused, or made for none."""
    write_pictures(tmp_path / "in", 1)
    with open_gallery(tmp_path / "home", database_url=url) as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
    with pytest.raises(StoreError, match=r"secret\.key"):
        Gallery.open(Settings(home=tmp_path / "other", database_url=url), create=True)
    assert not (tmp_path / "other" / "secret.key").exists()
