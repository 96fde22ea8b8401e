"""Every packaged revision, down and up again over rows: each column that both sides know keeps its checksum."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from retrieval import revisions
from retrieval.access import AccessKeys, Scope
from retrieval.catalog import Catalog
from retrieval.database import Database
from retrieval.publish import publish
from retrieval.schema import REVISION, VERSION_TABLE
from retrieval.types import Attributes, Label
from retrieval.verify import verify
from tests.databases import BINDING, FINGERPRINT, embedded

Checksums = dict[tuple[str, str], str]
BATCH = 500


def fill(url: str, home: Path, count: int) -> None:
    """Cases with everything a case can have, some deleted, an index, an access key."""
    with Catalog.open(url, create=True) as catalog:
        catalog.bind(BINDING)
        for start in range(0, count, BATCH):
            part = [
                embedded(
                    f"case-{n:06}", attributes=Attributes(modality="CT", age=n % 90 + 0.25, source="é"),
                    labels=(Label("finding", "é" * (n % 4), n / 7),), report="r" * (n % 50),
                    patient_key=f"{n % 997:032x}", study_uid=f"2.25.{n}", slices=1 + n % 3,
                )
                for n in range(start, min(start + BATCH, count))
            ]  # fmt: skip
            catalog.commit(part, fingerprint=FINGERPRINT)
        catalog.delete([f"case-{n:06}" for n in range(0, count, 41)])
        publish(catalog, home, "exact")
        AccessKeys(catalog.database).create_key("me", Scope.READ)


def checksums(database: Database) -> Checksums:
    """For each column of each table that is there: SHA-256 of its values in the order of the primary key."""
    found: Checksums = {}
    with database.read() as connection:
        seen = inspect(connection)
        for table in sorted(set(seen.get_table_names()) - {VERSION_TABLE}):
            order = ", ".join(seen.get_pk_constraint(table)["constrained_columns"])
            for column in (each["name"] for each in seen.get_columns(table)):
                digest = hashlib.sha256()
                for value in connection.scalars(text(f'SELECT "{column}" FROM {table} ORDER BY {order}')):
                    digest.update(repr(bytes(value) if isinstance(value, memoryview) else value).encode() + b"\n")
                found[table, column] = digest.hexdigest()
    return found


def older_revisions() -> list[str]:
    """Newest first, the present one left out."""
    known = ScriptDirectory.from_config(revisions.configuration()).walk_revisions()
    return [script.revision for script in known if script.revision != REVISION]


def down_and_up(url: str, home: Path, count: int) -> None:
    fill(url, home, count)
    with closing(Database(url)) as database:
        before = checksums(database)
        assert len(older_revisions()) >= 2
        for revision in older_revisions():
            revisions.downgrade(database, revision)
            below = checksums(database)
            known = before.keys() & below.keys()
            assert {
                ("cases", "key"),
                ("embeddings", "vector"),
                ("slices", "vectors"),
                ("files", "sealed_path"),
            } <= known
            assert {key: below[key] for key in known} == {key: before[key] for key in known}, revision
        for revision in reversed([REVISION, *older_revisions()]):
            revisions.upgrade(database, revision)
        assert checksums(database) == before
    with Catalog.open(url) as catalog:
        assert catalog.count() == count - len(range(0, count, 41))
        assert verify(catalog, home).ok


def test_every_revision_down_and_up_keeps_every_column(database_url: str, tmp_path: Path) -> None:
    down_and_up(database_url, tmp_path / "home", 300)


@pytest.mark.slow
def test_every_revision_down_and_up_keeps_ten_thousand_cases(database_url: str, tmp_path: Path) -> None:
    down_and_up(database_url, tmp_path / "home", 10_000)


def test_a_checksum_sees_one_changed_byte(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    fill(f"sqlite:///{path}", tmp_path / "home", 50)
    with closing(Database(f"sqlite:///{path}")) as database:
        before = checksums(database)
        with closing(sqlite3.connect(path)) as raw, raw:
            (held,) = raw.execute("SELECT vectors FROM slices WHERE key = 7").fetchone()
            raw.execute("UPDATE slices SET vectors = ? WHERE key = 7", (bytes([held[0] ^ 1]) + held[1:],))
        after = checksums(database)
    assert {key for key in before if before[key] != after[key]} == {("slices", "vectors")}


def test_an_older_gallery_opens_with_everything_in_it(database_url: str, tmp_path: Path) -> None:
    """As a user upgrades: the store lies at the first revision, and is opened."""
    fill(database_url, tmp_path / "home", 100)
    with closing(Database(database_url)) as database:
        before = checksums(database)
        revisions.downgrade(database, older_revisions()[-1])
    with Catalog.open(database_url) as catalog:
        assert verify(catalog, tmp_path / "home").ok
        assert checksums(catalog.database) == before
