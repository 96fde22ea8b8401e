"""A backup restores to the same gallery: SQLite and PostgreSQL, from and into; damaged, newer, refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select, update

from retrieval.access import AccessKeys, Scope
from retrieval.backups import KeptFiles, backup, read_backup, restore
from retrieval.backups.manifest import CHECKSUM, KEY, MANIFEST
from retrieval.backups.staging import PREFIX
from retrieval.catalog import Binding, Catalog
from retrieval.database import Database
from retrieval.errors import StoreError, StoreTooNew, UsageError
from retrieval.generations import generations_folder
from retrieval.jobs import Jobs, JobState
from retrieval.privacy import Secret
from retrieval.publish import Takeover, publish, publish_compared
from retrieval.schema import embeddings, metadata
from retrieval.types import Attributes, Label
from retrieval.verify import verify
from tests.databases import BINDING, FINGERPRINT, embedded, postgres_database

NAMES = [f"case-{n:02}" for n in range(40)]


def no_names(_: Catalog) -> set[str]:
    return set()


NONE_KEPT = KeptFiles("kept", no_names)


def fill(catalog: Catalog, home: Path) -> None:
    """Forty cases with everything a case can have, three deleted, an index, some newer than it, a key, a job."""
    home.mkdir(exist_ok=True)
    cases = [
        embedded(
            name, attributes=Attributes(modality="CT", age=n + 0.5), labels=(Label("finding", "é", 1.5),),
            report="kein Befund" if n % 2 else "", patient_key=f"{n % 7:032x}", slices=1 + n % 3,
        )
        for n, name in enumerate(NAMES)
    ]  # fmt: skip
    catalog.commit(cases[:30], fingerprint=FINGERPRINT)
    publish(catalog, home, "exact")
    publish(catalog, home, "faiss")
    catalog.commit(cases[30:], fingerprint=FINGERPRINT)
    catalog.delete(["case-03", "case-11", "case-35"])
    AccessKeys(catalog.database).create_key("me", Scope.ADMIN)
    Jobs(catalog.database).create("rebuild")


def rows(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table but jobs and generations, which a restore changes."""
    with database.read() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(select(table)).all()), key=repr)
            for table in metadata.sorted_tables
            if table.name not in {"jobs", "generations"}
        }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "home"
    place.mkdir()
    return place


@pytest.fixture
def secret(home: Path) -> Secret:
    return Secret.open(home / KEY, create=True)


@contextmanager
def another(kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A URL to restore into."""
    if kind == "sqlite":
        yield ""
    else:
        with postgres_database(request.getfixturevalue("postgres_url")) as url:
            yield url


@pytest.mark.parametrize("into", ["sqlite", "postgresql"])
def test_everything_comes_back(
    catalog: Catalog, home: Path, secret: Secret, tmp_path: Path, into: str, request: pytest.FixtureRequest
) -> None:
    fill(catalog, home)
    before = rows(catalog.database)
    made = backup(catalog, home, tmp_path / "b", secret, NONE_KEPT)
    assert (made.manifest.cases, made.manifest.last_key, made.manifest.last_tombstone) == (37, 40, 3)
    assert made.manifest.generation == catalog.heads().generation
    with another(into, request) as url:
        restored = restore(tmp_path / "b", tmp_path / "new", url, key=home / KEY)
        assert restored.report.ok and not restored.rebuilt
        assert (tmp_path / "new" / KEY).read_bytes() == secret.key
        with Catalog.open(url or f"sqlite:///{tmp_path / 'new' / 'catalog.sqlite3'}") as again:
            assert rows(again.database) == before
            assert [row.name for row in again.generations()] == [made.manifest.generation]
            assert [job.state for job in Jobs(again.database).list_jobs()] == [JobState.INTERRUPTED]
            # numbers go on where they were
            again.commit([embedded("later")], fingerprint=FINGERPRINT)
            assert again.case("later").key == 41
            Jobs(again.database).create("rebuild")
            AccessKeys(again.database).create_key("other", Scope.READ)
            publish(again, tmp_path / "new", "exact")
            assert verify(again, tmp_path / "new").ok


def test_a_backup_is_one_directory_for_its_owner_only(
    catalog: Catalog, home: Path, secret: Secret, tmp_path: Path
) -> None:
    fill(catalog, home)
    made = backup(catalog, home, tmp_path / "b", secret, NONE_KEPT)
    found = {path.relative_to(tmp_path / "b").as_posix() for path in (tmp_path / "b").rglob("*") if path.is_file()}
    assert found == {fact.name for fact in made.manifest.files} | {MANIFEST, CHECKSUM}
    assert "catalog.sqlite3" in found and KEY not in found
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o700
    for fact in made.manifest.files:
        data = (tmp_path / "b" / fact.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (fact.bytes, fact.sha256)
    assert not list(tmp_path.glob(f"{PREFIX}*")) and not list(home.glob(f"{PREFIX}*"))
    assert read_backup(tmp_path / "b") == made.manifest


def test_the_key_is_in_it_only_when_asked_for(catalog: Catalog, home: Path, secret: Secret, tmp_path: Path) -> None:
    fill(catalog, home)
    backup(catalog, home, tmp_path / "without", secret, NONE_KEPT)
    backup(catalog, home, tmp_path / "with", secret, NONE_KEPT, with_key=True)
    held = b"".join(path.read_bytes() for path in (tmp_path / "without").rglob("*") if path.is_file())
    assert secret.key not in held and secret.key.hex().encode() not in held
    with pytest.raises(UsageError, match="made without its key: state the copy"):
        restore(tmp_path / "without", tmp_path / "new")
    other = tmp_path / "other.key"
    other.write_bytes(bytes(32))
    for place in ("with", "without"):
        with pytest.raises(UsageError, match="the key of another gallery"):
            restore(tmp_path / place, tmp_path / "new", key=other)
    assert not (tmp_path / "new").exists()
    assert restore(tmp_path / "with", tmp_path / "new").report.ok
    assert (tmp_path / "new" / KEY).read_bytes() == secret.key
    assert (tmp_path / "new" / KEY).stat().st_mode & 0o777 == 0o600


def test_without_its_index_the_index_is_built_anew(
    catalog: Catalog, home: Path, secret: Secret, tmp_path: Path
) -> None:
    fill(catalog, home)
    damaged = generations_folder(home) / catalog.heads().generation / "vectors.f32"
    files = sorted((generations_folder(home) / catalog.heads().generation).iterdir())
    damaged = next(path for path in files if path.name != "manifest.json")
    raw = bytearray(damaged.read_bytes())
    raw[-1] ^= 1
    damaged.write_bytes(raw)
    assert backup(catalog, home, tmp_path / "b", secret, NONE_KEPT).manifest.generation == ""
    restored = restore(tmp_path / "b", tmp_path / "new", key=home / KEY)
    assert restored.rebuilt and restored.report.ok


@pytest.mark.parametrize("state", ["nothing", "bound", "emptied"])
def test_a_gallery_without_cases(tmp_path: Path, home: Path, secret: Secret, state: str) -> None:
    with Catalog.open(f"sqlite:///{home / 'catalog.sqlite3'}", create=True) as catalog:
        if state != "nothing":
            catalog.bind(BINDING)
        if state == "emptied":
            fill(catalog, home)
            catalog.delete(NAMES)
            shutil.rmtree(generations_folder(home))
        backup(catalog, home, tmp_path / "b", secret, NONE_KEPT)
    assert restore(tmp_path / "b", tmp_path / "new", key=home / KEY).report.ok


@pytest.fixture
def made(tmp_path: Path, home: Path, secret: Secret) -> Path:
    """A backup with its key, of a gallery on SQLite."""
    with Catalog.open(f"sqlite:///{home / 'catalog.sqlite3'}", create=True) as catalog:
        catalog.bind(BINDING)
        fill(catalog, home)
        return backup(catalog, home, tmp_path / "b", secret, NONE_KEPT, with_key=True).path


def test_damage_is_told_by_the_name_of_the_file(made: Path, tmp_path: Path) -> None:
    for fact in read_backup(made).files:
        path = made / fact.name
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[len(flipped) // 2] ^= 0x10
        for data in (bytes(flipped), whole[:-1], whole + b"\0", None):
            path.unlink()
            if data is not None:
                path.write_bytes(data)
            with pytest.raises(StoreError, match=f"In the backup {fact.name} is damaged"):
                restore(made, tmp_path / "new")
            assert not (tmp_path / "new").exists()
            path.write_bytes(whole)
    assert restore(made, tmp_path / "new").report.ok


def test_a_damaged_manifest_is_told(made: Path, tmp_path: Path) -> None:
    whole = (made / MANIFEST).read_bytes()
    for n in range(0, len(whole), 97):
        raw = bytearray(whole)
        raw[n] ^= 0x04
        (made / MANIFEST).write_bytes(raw)
        with pytest.raises(StoreError, match=f"{MANIFEST} does not have the SHA-256"):
            restore(made, tmp_path / "new")
    (made / MANIFEST).unlink()
    with pytest.raises(UsageError, match="is no backup"):
        restore(made, tmp_path / "new")


def rewrite(made: Path, **changed: object) -> None:
    """The manifest as another program would have written it, with a right checksum."""
    raw = json.loads((made / MANIFEST).read_bytes()) | changed
    data = json.dumps(raw).encode()
    (made / MANIFEST).write_bytes(data)
    (made / CHECKSUM).write_bytes(f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n".encode())


def test_a_newer_backup_is_refused(made: Path, tmp_path: Path) -> None:
    path = made / "catalog.sqlite3"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE precedent_version SET version_num = '9999'")
    data = path.read_bytes()
    stated = json.loads((made / MANIFEST).read_bytes())["files"]
    files = [
        fact | ({"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} if fact["name"] == path.name else {})
        for fact in stated
    ]
    rewrite(made, files=files)
    with pytest.raises(StoreTooNew, match="revision 9999"):
        restore(made, tmp_path / "new")
    rewrite(made, format=2)
    with pytest.raises(StoreTooNew, match="format 2"):
        restore(made, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "kept/../../escaped", "./kept"])
def test_no_name_leads_out_of_the_store(made: Path, tmp_path: Path, name: str) -> None:
    rewrite(made, files=[{"name": name, "bytes": 1, "sha256": "0" * 64}])
    with pytest.raises(StoreError, match="names a file outside"):
        restore(made, tmp_path / "new")


def test_what_is_there_is_never_overwritten(made: Path, tmp_path: Path, home: Path, secret: Secret) -> None:
    with Catalog.open(f"sqlite:///{home / 'catalog.sqlite3'}") as catalog:
        for target in (made, made / MANIFEST):
            with pytest.raises(UsageError, match="is there already"):
                backup(catalog, home, target, secret, NONE_KEPT)
        with pytest.raises(UsageError, match="does not exist: make it first"):
            backup(catalog, home, tmp_path / "unmounted" / "b", secret, NONE_KEPT)
        (tmp_path / "empty").mkdir()
        backup(catalog, home, tmp_path / "empty", secret, NONE_KEPT)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="is not empty: expected a new data directory"):
        restore(made, home)
    with pytest.raises(UsageError, match="not empty"):
        restore(made, made / MANIFEST)
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_a_server_that_holds_a_gallery_is_refused(made: Path, tmp_path: Path, postgres_url: str) -> None:
    with postgres_database(postgres_url) as url:
        with Catalog.open(url, create=True) as catalog:  # as an interrupted restore leaves it
            pass
        assert restore(made, tmp_path / "one", url).report.ok
        with pytest.raises(UsageError, match="holds a gallery: expected an empty one"):
            restore(made, tmp_path / "two", url)
        assert not (tmp_path / "two").exists()
        with Catalog.open(url) as catalog:
            assert catalog.count() == 37
    with pytest.raises(UsageError, match="inside the data directory"):
        restore(made, tmp_path / "two", f"sqlite:///{tmp_path / 'elsewhere'}")


def test_a_server_is_left_as_it_was_when_the_rest_fails(made: Path, tmp_path: Path, postgres_url: str) -> None:
    """A generation whose row tells of another encoder can't be settled: by then the rows are in the server."""
    with postgres_database(postgres_url) as url:
        with closing(sqlite3.connect(made / "catalog.sqlite3")) as database, database:
            database.execute("UPDATE generations SET backend = 'nonsense'")
            database.execute("PRAGMA journal_mode = DELETE")
        data = (made / "catalog.sqlite3").read_bytes()
        fact = {"name": "catalog.sqlite3", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        rewrite(made, files=[fact], generation="", key_inside=False)
        shutil.copy(made / KEY, tmp_path / "the.key")
        with pytest.raises(UsageError):
            restore(made, tmp_path / "new", url, key=tmp_path / "the.key")
        assert not (tmp_path / "new").exists()
        with Catalog.open(url) as catalog:
            assert catalog.count() == 0 and catalog.binding() is None
            catalog.bind(BINDING)


def test_what_was_wrong_is_told_and_kept(made: Path, tmp_path: Path, home: Path, secret: Secret) -> None:
    """In an emergency a gallery with one bad vector is better than none."""
    with Catalog.open(f"sqlite:///{home / 'catalog.sqlite3'}") as catalog:
        with catalog.database.write() as connection:
            connection.execute(update(embeddings).where(embeddings.c.key == 5).values(vector=b"short"))
        backup(catalog, home, tmp_path / "bad", secret, NONE_KEPT)
    report = restore(tmp_path / "bad", tmp_path / "new", key=home / KEY).report
    assert [check.name for check in report.findings] == ["unfit-vectors"]
    with Catalog.open(f"sqlite:///{tmp_path / 'new' / 'catalog.sqlite3'}") as catalog:
        assert verify(catalog, tmp_path / "new", repair=True).ok


OTHER = Binding("other-000000000002", "other", 8, "mean", "{}")


def embed_anew(catalog: Catalog, home: Path, upto: int, *, live: bool) -> None:
    """Vectors of another encoder for the first cases; with ``live`` it takes the gallery over."""
    catalog.begin_staging(OTHER)
    keys = catalog.by(OTHER.fingerprint).lacking(0, upto)
    made = [(int(key), embedded(f"other-{key}").embedding) for key in keys]
    catalog.stage(made, OTHER.fingerprint)
    if live:
        nothing = np.empty(0, np.int64)
        takeover = Takeover(OTHER.fingerprint, dropping=lambda: nothing, catch_up=lambda: None)
        assert publish_compared(catalog, home, "exact", takeover=takeover).live


@pytest.mark.parametrize("live", [False, True])
def test_a_gallery_with_vectors_of_two_encoders(
    catalog: Catalog, home: Path, secret: Secret, tmp_path: Path, live: bool
) -> None:
    """While it is embedded anew what was done already is kept; after that the former vectors, kept to go back, go."""
    fill(catalog, home)
    embed_anew(catalog, home, 1000 if live else 9, live=live)
    backup(catalog, home, tmp_path / "b", secret, NONE_KEPT)
    assert restore(tmp_path / "b", tmp_path / "new", key=home / KEY).report.ok
    with Catalog.open(f"sqlite:///{tmp_path / 'new' / 'catalog.sqlite3'}") as again:
        bound = again.binding()
        assert bound is not None
        assert bound.fingerprint == (OTHER if live else BINDING).fingerprint
        assert again.staged() == (None if live else OTHER)
        with again.database.read() as connection:
            counts = connection.execute(select(embeddings.c.encoder_id, func.count()).group_by(embeddings.c.encoder_id))
            assert sorted(count for _, count in counts) == ([37] if live else [9, 37])
