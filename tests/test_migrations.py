"""Upgrades never eat data: up, down and up again, on SQLite and PostgreSQL; too new a store is refused."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from alembic.config import Config
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

import migrations
from retrieval import revisions
from retrieval.catalog import Binding, Catalog
from retrieval.database import Database
from retrieval.errors import NotFoundError, StoreError, StoreTooNew, UsageError
from retrieval.schema import REVISION, VERSION_TABLE, metadata
from retrieval.types import Attributes, Embedding, Label
from tests.databases import BINDING, DIM, FINGERPRINT, embedded, unit_rows


def fill(url: str, count: int = 50) -> None:
    with Catalog.open(url, create=True) as catalog:
        catalog.bind(BINDING)
        catalog.commit(
            [
                embedded(f"case-{n}", attributes=Attributes(modality="CT", age=n), labels=(Label("finding", "é"),))
                for n in range(count)
            ],
            fingerprint=FINGERPRINT,
        )


def contents(url: str) -> list[object]:
    with Catalog.open(url) as catalog:
        cases = catalog.list_cases(limit=1000)
        keys = np.array([case.key for case in cases])
        rows = [row.tobytes() for _, batch in catalog.vectors(0) for row in batch]
        slices = [(key, found.tobytes(), frames) for key, (found, frames) in catalog.slices(keys).items()]
        return [cases, rows, slices, [catalog.files(case.case_id) for case in cases], catalog.heads()]


def migrate(url: str) -> None:
    """Make a gallery as an old one would have come to be what it is."""
    database = Database(url)
    revisions.upgrade(database)
    database.close()


def tables(url: str) -> set[str]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return set(inspect(connection).get_table_names())


def test_there_is_one_line_of_revisions_and_the_schema_is_at_its_head() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory.from_config(revisions.configuration()).get_heads() == [REVISION]


def test_up_down_up_keeps_the_tables_and_a_fresh_start_is_possible(database_url: str) -> None:
    database = Database(database_url)
    revisions.prepare(database, create=True)
    first = tables(database_url)
    assert first == set(metadata.tables) | {VERSION_TABLE}
    revisions.downgrade(database, "base")
    assert tables(database_url) <= {VERSION_TABLE}
    revisions.upgrade(database)
    assert tables(database_url) == first
    database.close()
    fill(database_url)
    assert len(contents(database_url)[1]) == 50


def test_a_downgrade_leaves_the_one_encoder_that_the_revision_before_knows(database_url: str) -> None:
    fill(database_url)
    before = contents(database_url)
    with Catalog.open(database_url) as catalog:
        catalog.begin_staging(Binding("other-000000000002", "other", DIM, "mean", "{}"))
        rows = unit_rows(1)
        catalog.stage([(key, Embedding(rows[0], rows, (0,))) for key in (1, 2)], "other-000000000002")
        assert catalog.by("other-000000000002").count_lacking() == 48
    database = Database(database_url)
    revisions.downgrade(database, "0002")
    revisions.upgrade(database)
    database.close()
    assert contents(database_url) == before
    with Catalog.open(database_url) as catalog, pytest.raises(NotFoundError):
        catalog.by("other-000000000002")


LATER = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "9999", "THE_HEAD", None, None

def rebuilt():
    recreate = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    return op.batch_alter_table("encoders", recreate=recreate)

def upgrade():
    op.add_column("cases", sa.Column("note", sa.Text(), nullable=False, server_default="none"))
    with rebuilt() as batch:
        batch.add_column(sa.Column("note", sa.Text(), nullable=False, server_default="none"))

def downgrade():
    op.drop_column("cases", "note")
    with rebuilt() as batch:
        batch.drop_column("note")
""".replace("THE_HEAD", REVISION)


def later(directory: Path, source: str = LATER) -> Config:
    """Alembic's configuration with one more revision than is packaged."""
    (directory / "9999_later.py").write_text(source)
    config = revisions.configuration()
    config.set_main_option("path_separator", "os")
    packaged = Path(migrations.__file__).parent / "versions"
    config.set_main_option("version_locations", os.pathsep.join([str(packaged), str(directory)]))
    return config


def test_an_upgrade_over_rows_that_refer_to_a_rebuilt_table_keeps_every_byte(database_url: str, tmp_path: Path) -> None:
    fill(database_url)
    before = contents(database_url)
    database = Database(database_url)
    revisions.upgrade(database, config=later(tmp_path))
    with database.read() as connection:
        assert revisions.revision(connection) == "9999"
        assert connection.execute(text("SELECT count(*) FROM cases WHERE note = 'none'")).scalar() == 50
        assert connection.execute(text("SELECT count(*) FROM encoders WHERE note = 'none'")).scalar() == 1
    revisions.downgrade(database, REVISION, config=later(tmp_path))
    database.close()
    assert contents(database_url) == before


def test_a_newer_store_is_refused_and_left_alone(database_url: str, tmp_path: Path) -> None:
    fill(database_url)
    database = Database(database_url)
    revisions.upgrade(database, config=later(tmp_path))
    for create in (False, True):
        with pytest.raises(StoreTooNew, match=f"revision 9999, this Precedent knows up to {REVISION}"):
            Catalog.open(database_url, create=create)
    with database.read() as connection:
        assert revisions.revision(connection) == "9999"
    database.close()


def test_a_migration_that_fails_half_way_leaves_everything_as_it_was(database_url: str, tmp_path: Path) -> None:
    fill(database_url)
    before = contents(database_url)
    failing = LATER.replace("def downgrade", "    raise RuntimeError('half way')\n\ndef downgrade")
    database = Database(database_url)
    with pytest.raises(RuntimeError, match="half way"):
        revisions.upgrade(database, config=later(tmp_path, failing))
    database.close()
    assert contents(database_url) == before


def test_a_migration_that_leaves_dangling_rows_is_undone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.sqlite3'}"
    fill(url)
    before = contents(url)
    careless = LATER.replace("def downgrade", "    op.execute('DELETE FROM encoders')\n\ndef downgrade")
    database = Database(url)
    with pytest.raises(StoreError, match="refer to nothing"):
        revisions.upgrade(database, config=later(tmp_path, careless))
    database.close()
    assert contents(url) == before


@pytest.mark.filterwarnings("ignore:.*expression-based index")  # SQLAlchemy can't reflect them on SQLite; see below
def test_the_migrations_make_the_tables_of_the_schema(database_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    migrate(database_url)
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


ON_POSTGRESQL = (
    "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default, is_identity "
    "FROM information_schema.columns WHERE table_schema = 'public'",
    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = 'public'::regnamespace",
    "SELECT relname, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace",
)


def described(url: str) -> list[set[tuple[object, ...]]]:
    """All that the database knows of its tables, and the rows that are in them from the beginning."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        rows: set[tuple[object, ...]] = {
            (table, *sorted(row.items()))
            for table in (*metadata.tables, VERSION_TABLE)
            for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()
        }
        if connection.dialect.name == "postgresql":
            return [rows, *({tuple(row) for row in connection.execute(text(told))} for told in ON_POSTGRESQL)]
        statements = connection.scalars(text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
        lines = [statement.replace('"', "").splitlines() for statement in statements]
        return [rows, {tuple(sorted(line.strip().rstrip(",").rstrip() for line in each)) for each in lines}]


def test_a_new_gallery_is_the_same_to_the_letter_as_a_migrated_one(database_url: str) -> None:
    """Checks, collations and indexes on expressions, which Alembic does not compare, included."""
    Catalog.open(database_url, create=True).close()
    new = described(database_url)
    database = Database(database_url)
    revisions.downgrade(database, "base")
    assert tables(database_url) <= {VERSION_TABLE}
    revisions.upgrade(database)
    database.close()
    assert described(database_url) == new
    assert len(new[0]) == 2 and all(new)


def test_without_create_a_missing_gallery_is_told_and_nothing_is_made(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"No gallery at .*: run precedent index"):
        Catalog.open(database_url)
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_another_program_is_not_taken_for_a_gallery(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE alembic_version (version_num TEXT)")
    with pytest.raises(StoreError, match="No gallery at"):
        Catalog.open(f"sqlite:///{path}")


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    path.write_bytes(b"not a database" * 1000)
    for create in (False, True):
        with pytest.raises(StoreError, match="not an SQLite database: restore it"):
            Catalog.open(f"sqlite:///{path}", create=create)
    assert path.read_bytes() == b"not a database" * 1000


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    with pytest.raises(StoreError, match="can't be reached") as caught:
        Catalog.open("postgresql://someone:hunter2@127.0.0.1:1/nothing", create=True)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "mysql://host/name", "sqlite://", "sqlite:///:memory:", "nonsense"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="Expected sqlite:///FILE or postgresql://"):
        Catalog.open(url, create=True)


def create_at(url: str) -> int:
    with Catalog.open(url, create=True) as catalog:
        catalog.bind(BINDING)
        return catalog.count()


def test_many_processes_may_create_the_same_gallery_at_once(database_url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.map(create_at, [database_url] * 12, chunksize=1) == [0] * 12
    with Catalog.open(database_url) as catalog:
        assert catalog.binding() == BINDING


def test_an_installed_wheel_finds_its_migrations(tmp_path: Path) -> None:
    """From a directory that holds nothing but what the wheel holds, and with the source tree out of reach."""
    root = Path(migrations.__file__).parent.parent
    site = tmp_path / "site"
    for package in ("retrieval", "migrations"):
        shutil.copytree(root / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    url = f"sqlite:///{tmp_path / 'catalog.sqlite3'}"
    script = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import retrieval; from retrieval.catalog import Catalog; "
        f"assert retrieval.__file__.startswith({str(site)!r}); Catalog.open({url!r}, create=True).close()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    assert tables(url) == set(metadata.tables) | {VERSION_TABLE}
