"""Cases deleted one after the other, and asked for ever after: does one come back?

    python -m benchmarks.reliability.deletions [--queries 10000] [--seed 0] [--databases sqlite,postgresql]

A gallery of twins: two cases almost alike, of different patients. One of a pair is deleted, by turns over HTTP at one
of two services, in this process, and in another; before, it is the first hit of its twin. As soon as the deletion is
acknowledged all four are asked: the twin's neighbours, and in Python also those of the deleted vector itself. No answer
may hold a case that was deleted before it was asked for, and the case itself must be gone (404). Meanwhile the index is
rebuilt, by turns exact and compressed, and rolled back to generations in which deleted cases still are.

Then ``erase`` compacts, and every file of the data directory and of the database is searched for the bytes of the
deleted cases: vector, slices, report, label, hashes. While they were on file each must be found, or the search proves
nothing. Exits 1 when a case came back, was not the first hit before, or left a byte.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from http.client import RemoteDisconnected
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sqlalchemy import text

from benchmarks.reliability.backups import a_server, new_database
from benchmarks.reliability.expected import directions
from benchmarks.reliability.sessions import Asked, Gate, Place, Remote, Session
from benchmarks.served import Client, served, similar_path
from indexer.erase import erase
from indexer.originals import seal
from indexer.sources import Source
from retrieval.errors import NotFoundError
from retrieval.gallery import Gallery
from retrieval.privacy import Secret
from retrieval.settings import Settings
from retrieval.types import Case, CaseFile, CaseKind, EmbeddedCase, Embedding, Label, Query

K = 10
QUERIES = 6  # after each deletion: two services, and two processes in two ways
BACKENDS = ("exact", "faiss", "faiss:SQ8")
SEARCHED = 300  # deleted cases whose bytes are looked for


@dataclass(slots=True)
class Outcome:
    """``unseen``: deleted cases that were not their twin's first hit before. ``returned``: what came back, and how."""

    deleted: list[str] = field(default_factory=list)
    queries: Counter[str] = field(default_factory=Counter)
    swaps: Counter[str] = field(default_factory=Counter)
    unseen: int = 0
    returned: list[str] = field(default_factory=list)
    unfound: int = 0  # cases of which no byte was found while they were on file: the search would prove nothing
    traces: list[str] = field(default_factory=list)  # deleted cases of which bytes were found after compaction


def one(pair: int) -> str:
    return f"one{pair:013d}"


def other(pair: int) -> str:
    return f"other{pair:011d}"


def twins(pair: int, secret: Secret) -> list[EmbeddedCase]:
    """Two cases of the same direction but for a fifth of it."""
    base, apart = directions(2, pair)
    near = base + 0.2 * apart
    return [_case(one(pair), base, secret), _case(other(pair), near / np.linalg.norm(near), secret)]


def _case(name: str, row: npt.NDArray[np.float32], secret: Secret) -> EmbeddedCase:
    facts = Case(
        name, CaseKind.IMAGE, labels=(Label("finding", f"label of {name}"),), report=f"report of {name}",
        patient_key=f"patient of {name}", content_sha256=f"content of {name}", pixel_sha256=f"pixels of {name}",
    )  # fmt: skip
    vector = row.astype(np.float32)
    file = CaseFile(f"file of {name}", 1, seal(Source(Path("/archive") / name), "dicom", secret))
    return EmbeddedCase(facts, Embedding(vector, vector[None, :], (0,)), (file,))


def traces(name: str, row: npt.NDArray[np.float32]) -> list[bytes]:
    """Byte strings that no other case has."""
    vector = row.astype(np.float32)
    words = (f"{what} of {name}".encode() for what in ("label", "report", "patient", "content", "pixels", "file"))
    return [vector.tobytes()[:64], vector.tobytes()[-64:], vector.astype("<f2").tobytes()[:64], *words]


def live_bytes(gallery: Gallery) -> bytes:
    """Every file of the data directory and the database; of a server, its tables and indexes."""
    found = [path.read_bytes() for path in gallery.settings.home.rglob("*") if path.is_file()]
    database = gallery.catalog.database
    if database.path is not None:
        found += [path.read_bytes() for path in database.path.parent.glob(f"{database.path.name}*")]
        return b"".join(found)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CHECKPOINT")
        folder = Path(connection.scalar(text("SHOW data_directory")))
        number = connection.scalar(text("SELECT oid FROM pg_database WHERE datname = current_database()"))
    return b"".join([*found, *(path.read_bytes() for path in (folder / "base" / str(number)).iterdir())])


class Round:
    """Two services, this process and another one, all of one gallery."""

    def __init__(self, services: Sequence[Client], here: Session, there: Gate, outcome: Outcome) -> None:
        self._services = services
        self._here, self._there = here, there
        self._outcome = outcome
        self._gone: set[str] = set()

    def delete(self, pair: int, who: int) -> None:
        """By one of the four; then all of them are asked."""
        name, twin = one(pair), other(pair)
        self._outcome.unseen += self._similar(who % 2, twin)[:1] != [name]
        if who < 2:
            status, _ = self._over_http(who, "DELETE", f"/v1/cases/{name}")
            gone = status in {200, 404}  # 404: the reply to the first attempt was lost
        else:
            gone = (self._here, self._there)[who - 2].delete([name]) == [name]
        if not gone:
            self._outcome.returned.append(f"{name} could not be deleted")
        self._gone.add(name)
        self._outcome.deleted.append(name)
        self._ask(name, twin, pair)

    def _ask(self, name: str, twin: str, pair: int) -> None:
        for number in range(len(self._services)):
            self._judge("HTTP", self._similar(number, twin))
            if self._over_http(number, "GET", f"/v1/cases/{name}")[0] != 404:
                self._outcome.returned.append(f"{name} is on file over HTTP")
        vector = directions(2, pair)[0]
        asked = Asked(Query(Embedding(vector, vector[None, :], (0,))), K)
        for gate in (self._here, self._there):
            self._judge("Python", gate.similar(twin, asked).case_ids)
            self._judge("Python", gate.search(asked).case_ids)
            try:
                gate.similar(name, asked)
            except NotFoundError:
                continue
            self._outcome.returned.append(f"{name} is on file in Python")

    def _similar(self, number: int, case_id: str) -> list[str]:
        status, told = self._over_http(number, "GET", similar_path(case_id, k=K))
        if status != 200:
            raise SystemExit(f"A search was answered with {status}: {told!r}")
        return [hit["case_id"] for hit in json.loads(told)["hits"]]

    def _over_http(self, number: int, method: str, path: str) -> tuple[int, bytes]:
        """Asked again on a new connection where the old one has been closed, as a service does that waits too long."""
        try:
            return self._services[number].ask(method, path)
        except (RemoteDisconnected, ConnectionError):
            return self._services[number].ask(method, path)

    def _judge(self, how: str, answer: Sequence[str]) -> None:
        self._outcome.queries[how] += 1
        self._outcome.returned += [f"{name} over {how}" for name in answer if name in self._gone]

    def swap(self, rng: np.random.Generator) -> None:
        """A new index, or the one before: it holds what was deleted since."""
        gate = (self._here, self._there)[int(rng.integers(2))]
        if rng.random() < 0.5:
            try:
                gate.rollback()
            except NotFoundError:
                pass
            else:
                self._outcome.swaps["rolled back"] += 1
                return
        backend = BACKENDS[int(rng.integers(len(BACKENDS)))]
        gate.publish(backend, keep_previous=True)
        self._outcome.swaps[backend] += 1


def measure(folder: Path, url: str, deletions: int, seed: int) -> Outcome:
    """One gallery in an empty folder, of twice as many pairs."""
    outcome, rng = Outcome(), np.random.default_rng(seed)
    place = Place(folder / "home", url)
    settings = Settings(home=place.home, database_url=url, encoder="classical")
    with Gallery.open(settings, create=True) as gallery:
        for start in range(0, 2 * deletions, 500):
            gallery.add(
                [case for pair in range(start, min(start + 500, 2 * deletions)) for case in twins(pair, gallery.secret)]
            )
        chosen = rng.permutation(2 * deletions)[:deletions]
        searched = chosen[:SEARCHED].tolist()
        outcome.unfound = len(searched) - len(_left(gallery, searched))
    with four(place, folder, outcome) as at_work:
        for n, pair in enumerate(chosen.tolist()):
            if n % 25 == 10:
                at_work.swap(rng)
            at_work.delete(pair, n % 4)
    with Gallery.open(settings) as gallery:
        erase(gallery, [])
        outcome.traces = _left(gallery, searched)
    return outcome


@contextmanager
def four(place: Place, folder: Path, outcome: Outcome) -> Iterator[Round]:
    environment = {"PRECEDENT_DATABASE_URL": place.url} if place.url else {}
    with ExitStack() as stack:
        ports = [stack.enter_context(served(place.home, folder / f"log{n}", environment)).port for n in range(2)]
        services = [stack.enter_context(Client(port, seconds=600)) for port in ports]
        here, there = Session(), Remote()
        stack.callback(there.end)
        stack.callback(here.close)
        for gate in (here, there):
            gate.open(place)
        here.publish("exact", keep_previous=True)
        yield Round(services, here, there, outcome)


def _left(gallery: Gallery, pairs: Sequence[int]) -> list[str]:
    """Names of the cases of which something is in a live file."""
    stored = live_bytes(gallery)
    return [one(n) for n in pairs if any(trace in stored for trace in traces(one(n), directions(2, n)[0]))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000, help="over all databases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--databases", default="sqlite,postgresql")
    asked = parser.parse_args()
    kinds, short = asked.databases.split(","), 0
    deletions = -(-asked.queries // (QUERIES * len(kinds)))
    with a_server() if "postgresql" in kinds else nullcontext("") as server:
        for kind in kinds:
            began = time.monotonic()
            room = new_database(server) if kind == "postgresql" else nullcontext("")
            with tempfile.TemporaryDirectory(prefix="precedent-deletions-") as folder, room as url:
                outcome = measure(Path(folder), url, deletions, asked.seed)
            queries = ", ".join(f"{count} over {how}" for how, count in outcome.queries.items())
            swaps = ", ".join(f"{count} {how}" for how, count in outcome.swaps.items())
            left = f"bytes of all but {outcome.unfound} found while on file, of {len(outcome.traces)} after compaction"
            print(
                f"{kind}: {len(outcome.deleted)} deleted ({outcome.unseen} not seen before), {queries}; index {swaps}; "
                f"{len(outcome.returned)} came back; {left}; {time.monotonic() - began:.0f} s",
                flush=True,
            )
            for told in (outcome.returned + outcome.traces)[:10]:
                print(f"- {told}")
            short += bool(outcome.returned or outcome.traces or outcome.unseen or outcome.unfound)
    return int(short > 0)


if __name__ == "__main__":
    raise SystemExit(main())
