"""Erased means gone: after it no live file holds a byte of the case, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import NullPool, create_engine, make_url, select

from benchmarks.reliability.deletions import live_bytes
from indexer.erase import SAMPLES, Receipt, erase
from indexer.intake import add_files
from indexer.labels import RowFacts
from indexer.originals import seal
from indexer.sandbox import Sandbox
from indexer.sources import Source
from retrieval.backups.catalog_copy import snapshot
from retrieval.backups.staging import staging
from retrieval.catalog import Catalog
from retrieval.errors import ConflictError, NotFoundError, StoreError
from retrieval.gallery import Gallery
from retrieval.publish import publish
from retrieval.schema import tombstones
from retrieval.types import Case, CaseFile, CaseKind, EmbeddedCase, Embedding, GroupBy, Label, Query
from retrieval.verify import verify
from tests.databases import postgres_database
from tests.processes import answer, run
from tests.studies import open_gallery, texture, write_pictures

COUNT = 60


@pytest.fixture
def gallery(tmp_path: Path, database_url: str) -> Iterator[Gallery]:
    """Sixty cases with canaries, an index and one before it, on each database."""
    with open_gallery(tmp_path / "home", database_url=database_url) as opened:
        opened.add([planted(opened, n) for n in range(COUNT)])
        publish(opened.catalog, opened.settings.home, "exact")
        publish(opened.catalog, opened.settings.home, "faiss")
        yield opened


def name(n: int) -> str:
    return f"case{n:012d}"


def planted(gallery: Gallery, n: int) -> EmbeddedCase:
    """A case whose every field is known by its number."""
    rows = np.random.default_rng(n).standard_normal((3, gallery.encoder.card.dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pooled = rows.mean(axis=0)
    return EmbeddedCase(
        Case(
            name(n), CaseKind.IMAGE,
            labels=(Label("finding", f"label-canary-{n:05d}"),), report=f"report-canary-{n:05d}",
            patient_key=gallery.secret.patient_key(f"patient-{n // 3}"), study_uid=f"2.25.4711{n:05d}",
            content_sha256=f"content-canary-{n:05d}", pixel_sha256=f"pixel-canary-{n:05d}",
        ),
        Embedding((pooled / np.linalg.norm(pooled)).astype(np.float32), rows, (0, 1, 2)),
        (CaseFile(f"file-canary-{n:05d}", 7, seal(Source(Path(f"/archive/{n}.dcm")), "dicom", gallery.secret)),),
        f"thumbnail-canary-{n:05d}".encode(),
    )  # fmt: skip


def canaries(gallery: Gallery, n: int) -> set[bytes]:
    """Byte strings that only the case n has: its vector, a slice, every text."""
    made = planted(gallery, n)
    words = ("label", "report", "content", "pixel", "file", "thumbnail")
    return {
        made.embedding.vector.tobytes(), made.embedding.vector.tobytes()[:64], made.embedding.vector.tobytes()[-64:],
        made.embedding.slices.astype("<f2").tobytes()[:64], f"2.25.4711{n:05d}".encode(),
        *(f"{word}-canary-{n:05d}".encode() for word in words),
    }  # fmt: skip


def left_of(gallery: Gallery, n: int) -> set[bytes]:
    stored = live_bytes(gallery)
    return {canary for canary in canaries(gallery, n) if canary in stored}


def search_for(gallery: Gallery, n: int) -> list[str]:

    found = gallery.search(Query(planted(gallery, n).embedding), k=5, group=GroupBy.NONE)
    return [hit.case.case_id for hit in found.hits]


@pytest.mark.parametrize("backend", ["exact", "faiss"])
def test_the_bytes_of_an_erased_case_are_in_no_live_file(gallery: Gallery, backend: str) -> None:
    """Its canaries are all found before, and while it is only deleted some still are: so the search can find them."""
    publish(gallery.catalog, gallery.settings.home, backend)
    assert left_of(gallery, 20) == canaries(gallery, 20)
    gallery.delete([name(20)])
    assert left_of(gallery, 20)
    receipt = erase(gallery, [name(21), name(22)])
    for n in (20, 21, 22):
        assert left_of(gallery, n) == set()
        assert name(n) not in search_for(gallery, n)
    assert left_of(gallery, 23) == canaries(gallery, 23)
    assert search_for(gallery, 23)[0] == name(23)
    assert verify(gallery.catalog, gallery.settings.home).ok
    check_receipt(gallery, receipt, [21, 22])


def check_receipt(gallery: Gallery, receipt: Receipt, erased: list[int]) -> None:
    assert [(case.case_id, case.key) for case in receipt.cases] == [(name(n), n + 1) for n in erased]
    assert [case.content_sha256 for case in receipt.cases] == [planted(gallery, n).case.content_sha256 for n in erased]
    count = len(erased)
    counted = {each.table: each.rows for each in receipt.rows}
    assert counted["cases"] == counted["embeddings"] == counted["slices"] == counted["reports"] == count
    assert counted["labels"] == counted["files"] == counted["thumbnails"] == count
    assert receipt.generation == gallery.catalog.heads().generation
    folder = gallery.settings.home / "generations"
    assert {path.name for path in folder.iterdir()} == {receipt.generation, ".lock"}
    assert {fact.name for fact in receipt.written} | {"manifest.json"} == {
        path.name for path in (folder / receipt.generation).iterdir()
    }
    assert receipt.removed and all(not (gallery.settings.home / fact.name).exists() for fact in receipt.removed)
    assert len(receipt.beyond) == (2 if gallery.catalog.database.is_sqlite else 3)


def test_what_was_deleted_before_is_erased_without_naming_it(gallery: Gallery) -> None:
    gallery.delete([name(n) for n in range(0, COUNT, 2)])
    assert left_of(gallery, 4)
    receipt = erase(gallery, [])
    assert receipt.cases == () and receipt.last_tombstone == COUNT // 2
    assert not any(left_of(gallery, n) for n in (0, 4, 58))
    assert receipt.database_bytes_after < receipt.database_bytes_before
    assert verify(gallery.catalog, gallery.settings.home).ok


@pytest.mark.parametrize("erased", [3, COUNT])
def test_statistics_of_the_database_hold_nothing_either(gallery: Gallery, erased: int) -> None:
    """A server samples values for its planner whenever it sees fit."""
    gather_statistics(gallery)
    erase(gallery, [name(n) for n in range(erased)])
    assert not any(left_of(gallery, n) for n in range(erased))


def test_a_role_that_does_not_own_the_database_is_told_what_it_can_not_reach(tmp_path: Path, postgres_url: str) -> None:
    with (
        postgres_database(postgres_url) as url,
        a_role(url) as as_tenant,
        open_gallery(tmp_path / "home", database_url=as_tenant) as opened,
    ):
        opened.add([planted(opened, 0)])
        assert SAMPLES in erase(opened, [name(0)]).beyond
    with postgres_database(postgres_url) as url, open_gallery(tmp_path / "other", database_url=url) as opened:
        opened.add([planted(opened, 0)])
        assert SAMPLES not in erase(opened, [name(0)]).beyond


@contextmanager
def a_role(url: str) -> Iterator[str]:
    """The URL of a role that may make tables in the database of another."""
    database = make_url(url)
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE tenant LOGIN")
        connection.exec_driver_sql("GRANT ALL ON SCHEMA public TO tenant")
    try:
        yield database.set(username="tenant").render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql("DROP OWNED BY tenant")
            connection.exec_driver_sql("DROP ROLE tenant")


def gather_statistics(gallery: Gallery) -> None:
    with gallery.catalog.database.engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()


def test_everything_may_be_erased(gallery: Gallery) -> None:
    erase(gallery, [name(n) for n in range(COUNT)])
    assert not any(left_of(gallery, n) for n in range(COUNT))
    assert len(gallery) == 0 and verify(gallery.catalog, gallery.settings.home).ok
    gallery.add([planted(gallery, 3)])
    assert search_for(gallery, 3) == [name(3)]


def test_cases_that_are_not_on_file(gallery: Gallery) -> None:
    before = gallery.catalog.heads()
    with pytest.raises(NotFoundError, match="None of these cases is on file"):
        erase(gallery, ["nothing"])
    assert gallery.catalog.heads() == before
    receipt = erase(gallery, ["nothing", name(1), name(1)])
    assert (receipt.not_on_file, [case.case_id for case in receipt.cases]) == (("nothing",), [name(1)])


def test_while_a_backup_is_made_nothing_is_deleted(gallery: Gallery) -> None:
    with staging(gallery.settings.home), pytest.raises(ConflictError, match="A backup of this gallery is being made"):
        erase(gallery, [name(1)])
    assert gallery.case(name(1))
    assert erase(gallery, [name(1)]).cases


def test_an_earlier_index_that_stays_is_told(gallery: Gallery, tmp_path: Path) -> None:
    """One that lies behind a link is not ours to remove: then there is no receipt."""
    link = gallery.settings.home / "generations" / "g000001-0123ab"
    link.symlink_to(tmp_path)
    with pytest.raises(StoreError, match=r"1 cases are deleted, .*1 earlier indexes could not be removed"):
        erase(gallery, [name(5)])
    link.unlink()
    erase(gallery, [])
    assert left_of(gallery, 5) == set()


@pytest.mark.slow  # it waits half a minute for the reader
def test_an_old_reader_is_told_and_the_rest_is_done_later(gallery: Gallery) -> None:
    """A state from before the deletion is kept on disk for whoever reads it: then there is no receipt."""
    with Catalog.open(gallery.settings.url) as other, snapshot(other.database) as connection:
        with pytest.raises(StoreError, match=r"1 cases are deleted, .* Then run precedent erase --deleted"):
            erase(gallery, [name(7)])
        assert connection.execute(select(tombstones)).all() == []
        assert name(7) not in search_for(gallery, 7)
    assert left_of(gallery, 7)
    erase(gallery, [])
    assert left_of(gallery, 7) == set()


def everything(home: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file())


def test_kept_uploads_go_too_and_the_command_prints_a_receipt(tmp_path: Path, sandbox: Sandbox) -> None:
    home = tmp_path / "home"
    pictures = write_pictures(tmp_path / "in", 4)
    with open_gallery(home) as gallery:
        told = [
            add_files(gallery, sandbox, {path: path.name}, facts=RowFacts(line=0, patient_id=f"Muster {n // 2}"))[0]
            for n, path in enumerate(pictures)
        ]
    ids = [status.case_id for status in told]
    pixels = [texture(n).tobytes() for n in range(4)]
    assert all(each in everything(home) for each in pixels) and len(list((home / "kept").iterdir())) == 4
    assert answer("erase", "--patient", " MUSTER 0", "--dry-run", home=home)["cases"] == ids[:2]
    refused = run("erase", ids[0], home=home, code=2)
    assert "Nobody is there to confirm" in refused.stderr and ids[0] not in refused.stdout
    run("erase", ids[0], "--deleted", "--yes", home=home, code=2)
    done = run("erase", "--patient", "Muster 0", "--yes", "--receipt", tmp_path / "receipt.json", home=home)
    receipt = json.loads(done.stdout)
    assert "2 cases are erased" in done.stderr and "Muster" not in done.stdout + done.stderr
    assert json.loads((tmp_path / "receipt.json").read_text()) == receipt
    assert [case["case_id"] for case in receipt["cases"]] == ids[:2]
    kept = [fact for fact in receipt["removed"] if fact["name"].startswith("kept/")]
    assert len(kept) == 2 and len(list((home / "kept").iterdir())) == 2
    stored = everything(home)
    assert [each in stored for each in pixels] == [False, False, True, True]
    assert not any(case_id.encode() in stored for case_id in ids[:2])
    assert answer("erase", ids[0], ids[2], "--yes", home=home, code=1)["not_on_file"] == [ids[0]]
    assert answer("verify", home=home)["ok"]
