"""A gallery does what a dictionary and NumPy say, in three sessions, on both databases; what would not is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from benchmarks.reliability.model import walk
from benchmarks.reliability.places import places
from benchmarks.reliability.sessions import Answer, Asked, Gate, Place, Remote, Session
from benchmarks.reliability.steps import Divergence, Tally
from retrieval.catalog import Outcome
from retrieval.types import EmbeddedCase


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Gate]:
    """A session in a process of its own."""
    remote = Remote()
    yield remote
    remote.end()


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("sqlite", 3),
        ("postgresql", 2),
        *(pytest.param(kind, 12, marks=pytest.mark.slow) for kind in ("sqlite", "postgresql")),
    ],
)
def test_a_gallery_equals_the_model(kind: str, count: int, elsewhere: Gate, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("postgres_url") if kind == "postgresql" else ""
    tally = Tally()
    with places(server) as rooms:
        walk(rooms, [Session(), Session(), elsewhere], tally, count, 30, 0)
    assert tally.galleries >= count and tally.searches > 9 * count


class Resurrecting(Session):
    """Says that it has deleted, and has not."""

    def delete(self, case_ids: Sequence[str]) -> list[str]:
        return [case_id for case_id in dict.fromkeys(case_ids) if self._there(case_id)]

    def _there(self, case_id: str) -> bool:
        return bool(self.gallery.catalog.content_of([case_id]))


class Losing(Session):
    """Acknowledges the last case of a batch, and drops it."""

    def add(self, cases: Sequence[EmbeddedCase], replace: bool) -> list[Outcome]:
        outcomes = super().add(cases, replace)
        self.gallery.delete([outcomes[-1].case_id])
        return outcomes


class Unordered(Session):
    """Puts one of two equally similar cases before the other by chance of its name."""

    def search(self, asked: Asked) -> Answer:
        found = super().search(asked)
        pairs = sorted(zip(found.similarities, found.case_ids, strict=True), key=lambda pair: (-pair[0], pair[1]))
        return replace(found, case_ids=tuple(name for _, name in pairs))


class Short(Session):
    """Leaves out what is last, where there is more than one hit."""

    def search(self, asked: Asked) -> Answer:
        found = super().search(asked)
        return replace(found, case_ids=found.case_ids[:1], similarities=found.similarities[:1])


class Remembering(Session):
    """Answers a question as it did when it was first asked."""

    def open(self, place: Place) -> None:
        self._answers: dict[bytes, Answer] = {}
        super().open(place)

    def search(self, asked: Asked) -> Answer:
        told = f"{asked.k} {asked.filters} {asked.same_patient} {asked.group}".encode()
        return self._answers.setdefault(asked.query.embedding.vector.tobytes() + told, super().search(asked))


@pytest.mark.parametrize("wrong", [Resurrecting, Losing, Unordered, Short, Remembering])
def test_a_session_that_does_something_else_is_told(wrong: type[Session]) -> None:
    with places() as rooms, pytest.raises(Divergence):
        walk(rooms, [Session(), wrong(), Session()], Tally(), 60, 30, 0, shrink=False, starts=(0,))
