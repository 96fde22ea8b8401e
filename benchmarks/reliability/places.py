"""New galleries by the thousand: each is a copy of one that was filled once, on SQLite or on a PostgreSQL server."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sqlalchemy import Engine, create_engine, make_url

from benchmarks.reliability.expected import Expected, made_up
from benchmarks.reliability.sessions import Place
from retrieval.gallery import Gallery
from retrieval.settings import Settings

ENCODER = "classical"


@dataclass(slots=True)
class Places:
    """``folder`` holds data directories; ``server``: URL of a PostgreSQL server, or "" for SQLite."""

    folder: Path
    server: str = ""
    _engine: Engine | None = None
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _filled: dict[int, tuple[Place, Expected]] = field(default_factory=dict)

    def new(self, cases: int) -> tuple[Place, Expected]:
        """A gallery with so many cases and no index, and what it should answer."""
        if cases not in self._filled:
            self._filled[cases] = self._fill(cases)
        (source, known), name = self._filled[cases], self._name()
        shutil.copytree(source.home, self.folder / name)
        return Place(self.folder / name, self._database(name, source.url)), known.copy()

    def drop(self, place: Place) -> None:
        shutil.rmtree(place.home)
        if place.url:
            self._execute(f"DROP DATABASE {place.home.name} WITH (FORCE)")

    def _fill(self, cases: int) -> tuple[Place, Expected]:
        name, known, rng = self._name(), Expected(), np.random.default_rng(cases)
        place = Place(self.folder / name, self._database(name))
        settings = Settings(home=place.home, database_url=place.url, encoder=ENCODER)
        with Gallery.open(settings, create=True) as gallery:
            made = [made_up(f"still{n:04d}", rng) for n in range(cases)]
            gallery.add(made)
        for each in made:
            known.add(each, put=False)
        return place, known

    def _name(self) -> str:
        return f"model{next(self._numbers):07d}"

    def _database(self, name: str, template: str = "") -> str:
        """The URL of a new database, empty or a copy of another; "" for SQLite, whose file is in the directory."""
        if not self.server:
            return ""
        copied = f" TEMPLATE {make_url(template).database}" if template else ""
        self._execute(f"CREATE DATABASE {name}{copied}")
        return make_url(self.server).set(database=name).render_as_string(hide_password=False)

    def _execute(self, statement: str) -> None:
        if self._engine is None:
            self._engine = create_engine(self.server, isolation_level="AUTOCOMMIT")
        with self._engine.connect() as connection:
            connection.exec_driver_sql(statement)

    def close(self) -> None:
        """Drop the databases that were copied from."""
        for place, _ in self._filled.values():
            self.drop(place)
        if self._engine is not None:
            self._engine.dispose()


@contextmanager
def places(server: str = "") -> Iterator[Places]:
    """In a folder of their own, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="precedent-model-") as folder:
        opened = Places(Path(folder), server)
        try:
            yield opened
        finally:
            opened.close()
