"""A gallery opened once, in this process or in one of its own: what a machine of random steps acts on.

``Session`` is the gallery itself, asked in the few words that the machine knows. ``Remote`` says the same words to a
``Session`` in another process, over a pipe.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from retrieval.catalog import Outcome
from retrieval.errors import PrecedentError
from retrieval.filters import parse_text
from retrieval.gallery import Gallery
from retrieval.publish import publish, rollback
from retrieval.settings import Settings
from retrieval.types import Attributes, EmbeddedCase, GroupBy, Label, Query, SamePatient, SearchResult
from retrieval.verify import verify


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gallery is: its data directory, and the URL of its database; "" for SQLite in the directory."""

    home: Path
    url: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """One search, as a user would put it; ``filters`` in the short form, "" for none."""

    query: Query
    k: int
    filters: str = ""
    same_patient: SamePatient = SamePatient.INCLUDE
    group: GroupBy = GroupBy.NONE


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: ids and similarities, best first, and what the answer says of itself."""

    case_ids: tuple[str, ...]
    similarities: tuple[float, ...]
    gallery_size: int
    generation: str
    plan: str
    exhaustive: bool


class Gate(Protocol):
    """The words a machine knows. Errors are the product's own, whatever the process."""

    def open(self, place: Place) -> None: ...
    def add(self, cases: Sequence[EmbeddedCase], replace: bool) -> list[Outcome]: ...
    def delete(self, case_ids: Sequence[str]) -> list[str]: ...
    def delete_patient(self, patient_key: str) -> int: ...
    def revise(
        self, case_id: str, attributes: Attributes | None, labels: tuple[Label, ...] | None, patient_key: str | None
    ) -> int: ...
    def search(self, asked: Asked) -> Answer: ...
    def similar(self, case_id: str, asked: Asked) -> Answer: ...
    def publish(self, backend: str, keep_previous: bool) -> str: ...
    def rollback(self) -> str: ...
    def size(self) -> int: ...
    def faults(self) -> list[str]: ...
    def close(self) -> None: ...


class Session:
    """A ``Gate`` in this process."""

    def __init__(self) -> None:
        self._gallery: Gallery | None = None

    @property
    def gallery(self) -> Gallery:
        if self._gallery is None:
            raise RuntimeError("This session is closed: open it first.")
        return self._gallery

    def open(self, place: Place) -> None:
        """Anew when it is open already, as a restart would."""
        self.close()
        settings = Settings(home=place.home, database_url=place.url) if place.url else Settings(home=place.home)
        self._gallery = Gallery.open(settings)

    def add(self, cases: Sequence[EmbeddedCase], replace: bool) -> list[Outcome]:
        return self.gallery.add(cases, replace=replace)

    def delete(self, case_ids: Sequence[str]) -> list[str]:
        return self.gallery.delete(case_ids)

    def delete_patient(self, patient_key: str) -> int:
        return self.gallery.catalog.delete_patient(patient_key)

    def revise(
        self, case_id: str, attributes: Attributes | None, labels: tuple[Label, ...] | None, patient_key: str | None
    ) -> int:
        """The case's key, which stays."""
        update = self.gallery.catalog.update
        return update(case_id, attributes=attributes, labels=labels, patient_key=patient_key).key

    def search(self, asked: Asked) -> Answer:
        return _answer(self.gallery.search(asked.query, **_options(asked)))

    def similar(self, case_id: str, asked: Asked) -> Answer:
        """To a case on file, itself excluded; the query of ``asked`` is not looked at."""
        return _answer(self.gallery.similar_to(case_id, **_options(asked)))

    def publish(self, backend: str, keep_previous: bool) -> str:
        """The new generation's name."""
        catalog, home = self.gallery.catalog, self.gallery.settings.home
        return publish(catalog, home, backend, keep_previous=keep_previous).name

    def rollback(self) -> str:
        """The name of the generation that is live again."""
        return rollback(self.gallery.catalog, self.gallery.settings.home).name

    def size(self) -> int:
        return self.gallery.state().size

    def faults(self) -> list[str]:
        """What ``verify`` finds."""
        return [check.sentence for check in verify(self.gallery.catalog, self.gallery.settings.home).findings]

    def close(self) -> None:
        if self._gallery is not None:
            self._gallery.close()
        self._gallery = None


class Remote:
    """A ``Gate`` to a process of its own, which lives until ``end``."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def end(self) -> None:
        self._pipe.close()
        self._process.join(60)

    def _ask(self, word: str, *told: object) -> Any:
        self._pipe.send((word, told))
        answer = self._pipe.recv()
        if isinstance(answer, PrecedentError):
            raise answer
        return answer

    def open(self, place: Place) -> None:
        self._ask("open", place)

    def add(self, cases: Sequence[EmbeddedCase], replace: bool) -> list[Outcome]:
        outcomes: list[Outcome] = self._ask("add", list(cases), replace)
        return outcomes

    def delete(self, case_ids: Sequence[str]) -> list[str]:
        deleted: list[str] = self._ask("delete", list(case_ids))
        return deleted

    def delete_patient(self, patient_key: str) -> int:
        return int(self._ask("delete_patient", patient_key))

    def revise(
        self, case_id: str, attributes: Attributes | None, labels: tuple[Label, ...] | None, patient_key: str | None
    ) -> int:
        return int(self._ask("revise", case_id, attributes, labels, patient_key))

    def search(self, asked: Asked) -> Answer:
        answer: Answer = self._ask("search", asked)
        return answer

    def similar(self, case_id: str, asked: Asked) -> Answer:
        answer: Answer = self._ask("similar", case_id, asked)
        return answer

    def publish(self, backend: str, keep_previous: bool) -> str:
        return str(self._ask("publish", backend, keep_previous))

    def rollback(self) -> str:
        return str(self._ask("rollback"))

    def size(self) -> int:
        return int(self._ask("size"))

    def faults(self) -> list[str]:
        found: list[str] = self._ask("faults")
        return found

    def close(self) -> None:
        self._ask("close")


def _serve(pipe: Connection) -> None:
    session = Session()
    while True:
        try:
            word, told = pipe.recv()
        except EOFError:
            return session.close()
        try:
            answer = getattr(session, word)(*told)
        except PrecedentError as error:
            answer = error
        pipe.send(answer)


def _options(asked: Asked) -> dict[str, Any]:
    filters = parse_text(asked.filters) if asked.filters else None
    return {"k": asked.k, "filters": filters, "same_patient": asked.same_patient, "group": asked.group}


def _answer(found: SearchResult) -> Answer:
    return Answer(
        tuple(hit.case.case_id for hit in found.hits),
        tuple(hit.similarity for hit in found.hits),
        found.gallery_size,
        found.generation,
        found.plan,
        found.exhaustive,
    )
