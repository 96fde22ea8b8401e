"""Writers and rebuilders killed at random moments: what they were told is on file, and nothing else.

    python -m benchmarks.reliability.kills [--count 1000] [--seed 0] [--cases 5000] [--dim 512] [--batches 6]
                                           [--seconds 0.5] [--database sqlite|postgresql]

A gallery of ``--cases`` cases that nobody touches and up to 4,000 that come and go. One process after the other opens
it, as a restarted service would; when its index answers it puts batches of up to 256 cases (new ones, known ones, other
contents in their place) and deletes others as fast as it can, and meanwhile publishes generations, exact and
compressed, and rolls them back. Each acknowledgement goes through a pipe at once. It is ended by SIGKILL when a random
number of batches, up to ``--batches``, was acknowledged and a random time, up to ``--seconds``, has gone by; one in
twelve while it still opens the gallery. A kill counts when

* every acknowledged case is on file as acknowledged, every part of it, under the key that was told: none is lost;
* nothing deleted or replaced is back; the batch in flight is there as a whole or not at all;
* no row of a part belongs to no case, and no key is in the index twice, or in one of index and database only;
* the live generation is the one last told (or the one in flight), and what can be rolled back to has its files.

Every 50 kills and at the end ``verify`` reads every byte. Ready again: from a process that has everything imported to
an open, checked and caught-up index that has answered a query. Exits 1 on a fault, or where that takes 2 s at p99.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from benchmarks.reliability import backups
from benchmarks.reliability.kill_ledger import FAULTS, Ledger, found_in
from benchmarks.reliability.kill_worker import Failed, Life, Ready, Seen, Told, work
from benchmarks.reliability.moving import FINGERPRINT, VERSIONS, case_of, moving_names
from benchmarks.reliability.sessions import Place
from retrieval.catalog import Binding, Catalog
from retrieval.generations import LOCK_FILE, generations_folder
from retrieval.publish import publish
from retrieval.verify import verify

MOVING = 4000
EVERY = 50  # kills between two full checks
EARLY = 1 / 12  # share of workers that are killed while they open the gallery
PROMISED_SECONDS = 2.0
LEFT_BY_KILLS = {"foreign-files"}  # what was being built: removed by the next rebuild
PRELOADED = ["benchmarks.reliability.backups", "benchmarks.reliability.kill_ledger", "retrieval.verify", "faiss"]
CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True, slots=True)
class Terms:
    """How often, how long, on what. A worker lives for up to ``batches`` and then for up to ``seconds``."""

    count: int
    seed: int
    cases: int
    dim: int
    moving: int = MOVING
    batches: int = 6
    seconds: float = 0.5
    every: int = EVERY


@dataclass(slots=True)
class Result:
    """``faults``: sentences; ``ready``: of each worker that was not held up."""

    ledger: Ledger
    kills: int = 0
    ready: list[Ready] = field(default_factory=list)
    verified: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, told: str, kill: int) -> None:
        self.faults.append(told)
        print(f"after kill {kill}: {told}", file=sys.stderr, flush=True)


def fill(place: Place, terms: Terms) -> None:
    """A gallery with the cases that nobody touches, and an index."""
    place.home.mkdir(parents=True, exist_ok=True)
    with Catalog.open(place.url, create=True) as catalog:
        catalog.bind(Binding(FINGERPRINT, "benchmark", terms.dim, "mean", "{}"))
        for start in range(0, terms.cases, 1000):
            part = [case_of(f"still{n:011d}", 1, terms.dim) for n in range(start, min(start + 1000, terms.cases))]
            catalog.commit(part, fingerprint=FINGERPRINT)
        publish(catalog, place.home, "exact")


@contextmanager
def working(life: Life) -> Iterator[tuple[BaseProcess, Connection]]:
    """A worker, killed at the end of the block."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=work, args=(life, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        ours.close()


def kill_all(place: Place, terms: Terms) -> Result:
    """One worker after the other, killed and checked."""
    CONTEXT.set_forkserver_preload(PRELOADED)
    with Catalog.open(place.url) as catalog:
        heads = catalog.heads()
    result = Result(Ledger(terms.cases, heads.generation, heads.last_key))
    names = tuple(moving_names(terms.moving))
    for number in range(terms.count):
        one_life(Life(place, terms.dim, terms.seed, number, names), terms, result)
        result.kills += 1
        if (number + 1) % terms.every == 0:
            _verify(place, result, excused=LEFT_BY_KILLS)
            print(f"{_summary(result)}", file=sys.stderr, flush=True)
    _last_look(Life(place, terms.dim, terms.seed, terms.count, names), terms, result)
    return result


def one_life(life: Life, terms: Terms, result: Result) -> None:
    """From start to kill: the worker before is accounted for, this one writes and is listened to."""
    rng = random.Random(f"{life.seed} {life.number}")
    early, batches, seconds = rng.random() < EARLY, rng.randint(0, terms.batches), rng.uniform(0.0, terms.seconds)
    with working(life) as (process, pipe):
        if early:
            time.sleep(seconds / 2)
            return
        if not _account(life, terms, result, pipe):
            return
        result.ledger.begin(life)
        pipe.send("go")
        wanted = result.ledger.notes["batches"] + batches
        while result.ledger.notes["batches"] < wanted and _listen(life, result, pipe, None):
            pass
        until = time.monotonic() + seconds
        while _listen(life, result, pipe, until):
            pass
        process.kill()
        while _listen(life, result, pipe, None):
            pass


def _account(life: Life, terms: Terms, result: Result, pipe: Connection) -> bool:
    """Whether the worker came up; what the one before left is checked, in the database and in this one's index."""
    try:
        ready = pipe.recv()
        if not isinstance(ready, Ready) or ready.damaged:
            raise EOFError(str(ready))
        if not ready.held_up:
            result.ready.append(ready)
        with Catalog.open(life.place.url) as catalog:
            found = found_in(catalog, terms.cases, terms.dim)
        probes = _probes(life, result.ledger)
        for fault in result.ledger.settle(found, life.place.home):
            result.fault(fault, life.number)
        pipe.send(probes)
        seen: Seen = pipe.recv()
    except EOFError as error:
        result.ledger.faults["refused"] += 1
        result.fault(f"refused: the worker did not come up. {error}", life.number)
        return False
    for fault in result.ledger.compare(seen, probes):
        result.fault(fault, life.number)
    return True


def _probes(life: Life, ledger: Ledger) -> list[tuple[str, int]]:
    """Contents to search for: some that are on file, some that were replaced or deleted."""
    rng = random.Random(f"probes {life.seed} {life.number}")
    on_file = rng.sample(sorted(ledger.held), min(4, len(ledger.held)))
    return [(name, ledger.held[name].version) for name in on_file] + [
        (name, rng.randint(1, VERSIONS)) for name in rng.sample(life.names, 2)
    ]


def _listen(life: Life, result: Result, pipe: Connection, until: float | None) -> bool:
    """Take down the next that is told; False when nothing is until that time, or the worker is dead."""
    if until is not None and not pipe.poll(max(0.0, until - time.monotonic())):
        return False
    try:
        told: Told = pipe.recv()
    except (EOFError, ConnectionResetError):
        return False
    if isinstance(told, Failed):
        result.ledger.faults["refused"] += 1
        result.fault(f"refused: {told.sentence}", life.number)
    result.ledger.hear(life, told)
    return until is None or time.monotonic() < until


def _last_look(life: Life, terms: Terms, result: Result) -> None:
    """After the last kill: accounted for, rebuilt, and then nothing that any kill left is there."""
    with working(life) as (_, pipe):
        _account(life, terms, result, pipe)
    with Catalog.open(life.place.url) as catalog:
        last = publish(catalog, life.place.home, "exact", keep_previous=False)
    _verify(life.place, result, excused=set())
    there = {path.name for path in generations_folder(life.place.home).iterdir()} - {LOCK_FILE}
    if there != {last.name}:
        result.ledger.faults["orphan"] += 1
        result.fault(f"orphan: {len(there) - 1} folders of dead rebuilds are still there", life.number)


def _verify(place: Place, result: Result, excused: set[str]) -> None:
    with Catalog.open(place.url) as catalog:
        findings = [check for check in verify(catalog, place.home).findings if check.name not in excused]
    result.verified += 1
    for check in findings:
        result.ledger.faults["index"] += 1
        result.fault(f"verify: {check.sentence}", result.kills)


def p99(seconds: Sequence[float]) -> float:
    return float(np.quantile(seconds, 0.99)) if seconds else 0.0


def _summary(result: Result) -> str:
    ledger = result.ledger
    waited, worked = ([getattr(each, of) for each in result.ready] or [0.0] for of in ("seconds", "cpu"))
    notes = ", ".join(f"{name} {count}" for name, count in sorted(ledger.notes.items()))
    faults = ", ".join(f"{kind} {ledger.faults[kind]}" for kind in FAULTS)
    return (
        f"{result.kills} kills, {ledger.operations} acknowledged operations; {faults}; verified {result.verified} "
        f"times; ready again {len(result.ready)} times: p50 {np.median(waited):.2f} s, p99 {p99(waited):.2f} s "
        f"({p99(worked):.2f} s of it on a core), worst {max(waited):.2f} s; {notes}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=5000, help="cases beside those that come and go")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batches", type=int, default=6, help="acknowledged to a worker before it is killed, at most")
    parser.add_argument("--seconds", type=float, default=0.5, help="that it lives on, at most")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    asked = parser.parse_args(arguments)
    terms = Terms(asked.count, asked.seed, asked.cases, asked.dim, batches=asked.batches, seconds=asked.seconds)
    on_server = asked.database == "postgresql"
    with (
        tempfile.TemporaryDirectory(prefix="precedent-kills-") as folder,
        backups.a_server() if on_server else nullcontext("") as server,
        backups.new_database(server) if on_server else nullcontext("") as url,
    ):
        home = Path(folder) / "home"
        place = Place(home, url or f"sqlite:///{home / 'catalog.sqlite3'}")
        print(f"seed {terms.seed}, {terms.cases} x {terms.dim} cases on {asked.database}", flush=True)
        fill(place, terms)
        result = kill_all(place, terms)
    print(_summary(result))
    return int(bool(result.faults) or p99([ready.seconds for ready in result.ready]) >= PROMISED_SECONDS)


if __name__ == "__main__":
    raise SystemExit(main())
