"""Two services, a command that rebuilds, eight readers and two writers on one store.

    python -m benchmarks.reliability.concurrency [--minutes 30] [--cases 500] [--seed 0]

Two ``precedent serve`` share a data directory that ``precedent index`` filled; ``precedent rebuild`` and
``precedent rebuild --rollback`` run one after the other without a pause. Readers ask either service over HTTP by
picture, by case and for a case. Writers upload a picture, write a report or delete at the one service and look at once,
at the other and at the same: the case is there and the first hit of a picture that is almost its own, has the new
report, or is gone and in no answer. What was deleted before a question was asked may be in nobody's answer.

Exits 1 when a reply was not the expected one, a process ended before its time, a command failed, or ``verify`` finds
something in the end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.reliability.concurrent_clients import Crowd, Told, picture, together
from benchmarks.served import Client, served
from retrieval.catalog import Catalog
from retrieval.settings import Settings
from retrieval.verify import verify
from tests.processes import COMMAND, environment

BACKENDS = ("exact", "faiss:SQfp16")
NOTHING_TO_GO_BACK_TO = "There is no earlier generation"


@dataclass(frozen=True, slots=True)
class Terms:
    cases: int
    seconds: int
    seed: int = 0
    readers: int = 8
    writers: int = 2


@dataclass(slots=True)
class Rebuilds:
    """What the commands did, by kind."""

    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def measure(terms: Terms, folder: Path) -> tuple[Told, Rebuilds]:
    """One run in an empty folder; faults are in what is returned."""
    home, told, rebuilds, stop = folder / "home", Told(), Rebuilds(), threading.Event()
    still = fill(folder / "pictures", home, terms.cases)
    with ExitStack() as stack:
        ports = [stack.enter_context(served(home, folder / f"log{n}")).port for n in range(2)]
        crowd = Crowd((ports[0], ports[1]), still, terms.seed, terms.readers, terms.writers)
        threads = [threading.Thread(target=_rebuild, args=(home, terms.seed, stop, rebuilds))]
        threads[0].start()
        threads += together(crowd, stop, told)
        for _ in range(terms.seconds):  # not at once: seconds in which the whole machine was held up don't count
            time.sleep(1)
        stop.set()
        for thread in threads:
            thread.join()
        for port in ports:
            with Client(port) as client:
                if client.get("/readyz")[0] != 200:
                    told.faults.append("a service is not ready in the end")
    _check_end(home, {*still, *told.kept}, told)
    return told, rebuilds


def fill(pictures: Path, home: Path, cases: int) -> list[str]:
    """Pictures indexed by the command; the ids of their cases, by number."""
    pictures.mkdir()
    for n in range(cases):
        (pictures / f"{n:06d}.png").write_bytes(picture(n))
    outcomes = pictures.parent / "outcomes.jsonl"
    _command(home, "index", str(pictures), "--outcomes", str(outcomes))
    told = [json.loads(line) for line in outcomes.read_text().splitlines()]
    found = {Path(each["path"]).stem: each["case_id"] for each in told}
    return [found[f"{n:06d}"] for n in range(cases)]


def _rebuild(home: Path, seed: int, stop: threading.Event, rebuilds: Rebuilds) -> None:
    rng = random.Random(f"{seed} rebuilds")
    for n in itertools.count():
        if stop.is_set():
            return
        back = n % 4 == 3
        wanted = ("--rollback",) if back else ("--index", rng.choice(BACKENDS))
        try:
            _command(home, "rebuild", *wanted)
        except subprocess.CalledProcessError as error:
            if not (back and NOTHING_TO_GO_BACK_TO in error.stderr):
                rebuilds.faults.append(f"rebuild {' '.join(wanted)} ended with {error.returncode}: {error.stderr}")
        else:
            rebuilds.done[wanted[-1]] += 1


def _check_end(home: Path, expected: set[str], told: Told) -> None:
    """Everything that should be on file is, nothing else, and ``verify`` finds nothing."""
    with Catalog.open(Settings(home=home).url) as catalog:
        found = {case.case_id for case in catalog.list_cases(limit=10**6)}
        told.faults += [f"verify: {check.sentence}" for check in verify(catalog, home).findings]
    if found != expected:
        told.faults.append(
            f"{len(expected - found)} cases are missing in the end, {len(found - expected)} are too many"
        )


def _command(home: Path, *words: str) -> Any:
    done = subprocess.run(
        [*COMMAND, *words, "--json"], capture_output=True, text=True, env=environment(home), check=True, timeout=600
    )
    return json.loads(done.stdout)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--cases", type=int, default=500, help="cases beside those that the writers add")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="precedent-concurrency-") as folder:
        told, rebuilds = measure(Terms(asked.cases, 60 * asked.minutes, asked.seed), Path(folder))
    faults = told.faults + rebuilds.faults
    for fault in faults[:50]:
        print(fault, file=sys.stderr)
    made = ", ".join(f"{count} {kind}" for kind, count in sorted(rebuilds.done.items()))
    print(
        f"{asked.minutes} min, seed {asked.seed}: {told.done['reads']} reads, "
        f"{told.done['writes']} writes, {told.done['looks']} looks at what was just written, rebuilds: {made}; "
        f"{len(faults)} faults"
    )
    return int(bool(faults))


if __name__ == "__main__":
    raise SystemExit(main())
