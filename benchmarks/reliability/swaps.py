"""An index that is swapped again and again under two services, 50 clients that ask and 5 that write.

    python -m benchmarks.reliability.swaps [--swaps 100] [--minutes 30] [--steady 120] [--cases 20000] [--seed 1]

Two ``precedent serve`` share one data directory. Clients ask them over HTTP for the neighbours of probes, half of the
questions with a filter; writers upload a picture to one service, find it at the other, delete it there and miss it at
the first. First all of that goes on for ``--steady`` seconds without swaps. Then, spread over the minutes, the index is
swapped: built anew over HTTP by the one or the other service, made for a metric head or for none by a third process,
or rolled back. Around each swap the right answer changes (``swap_answers`` says how, and what a mixed answer is).

Counted are answers, replies other than the one asked for, and answers that are a mixture or of a generation that was
replaced before they were asked for. Exits 1 when there is one of these, or when the 99th percentile of the time to an
answer is more than twice that before the swaps. Answers that were under way while the whole machine stood still for
more than a second (the clients' process was not run) are judged, but not timed; how long that was is printed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks.reliability.swap_answers import (
    PROBES,
    RANKS,
    History,
    Judge,
    Moment,
    Versions,
    beacon_id,
    beacons,
    case_of,
    head_of,
    probe_id,
    probe_vector,
)
from benchmarks.reliability.swap_clients import Crowd, Told, run
from benchmarks.served import Client, served
from retrieval.gallery import Gallery
from retrieval.publish import publish
from retrieval.settings import Settings

ENCODER = "classical"
SPAWN = multiprocessing.get_context("spawn")
SLOWER = 2.0  # than steady, at the 99th percentile


@dataclass(frozen=True, slots=True)
class Plan:
    """``seconds``: over which the swaps are spread; ``period``: of a client that asks."""

    swaps: int
    seconds: float
    steady: float
    cases: int
    seed: int
    asking: int = 50
    writing: int = 5
    period: float = 1.0
    backend: str = "exact"


@dataclass(slots=True)
class Outcome:
    """``steady`` and ``swapping``: seconds to each answer. ``kinds``: of the swaps that were made."""

    kinds: Counter[str] = field(default_factory=Counter)
    steady: list[float] = field(default_factory=list)
    swapping: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    written: int = 0
    stood_still: float = 0.0

    @property
    def slower(self) -> float:
        """How many times longer the 99th percentile is while the index is swapped."""
        return float(np.percentile(self.swapping, 99) / np.percentile(self.steady, 99))


def fill(gallery: Gallery, cases: int) -> None:
    """The probes, a first version of their beacons, and others of no importance."""
    dim, rng = gallery.encoder.card.dim, np.random.default_rng(0)
    gallery.add([case_of(probe_id(probe), probe_vector(probe, dim)) for probe in range(PROBES)])
    gallery.add(beacons(0, dim))
    for start in range(0, cases, 2000):
        rows = rng.standard_normal((min(2000, cases - start), dim), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        gallery.add([case_of(f"other{start + n:011d}", row) for n, row in enumerate(rows)])


class Swapper:
    """Changes the gallery and swaps its index, and writes down when what became true."""

    def __init__(self, gallery: Gallery, ports: Sequence[int], plan: Plan) -> None:
        self.history = History()
        self.kinds: Counter[str] = Counter()
        self._gallery = gallery
        self._ports = ports
        self._backend = plan.backend
        self._rng = random.Random(plan.seed)
        self._head = head_of(gallery.fingerprint, gallery.encoder.card.dim)
        gallery.catalog.save_adapter("swaps", self._head, "", "{}")
        self._version = 0
        self._last: tuple[int, str] | None = None  # of the last rebuild over HTTP, that can be rolled back: job, before

    def begin(self) -> None:
        """The first generation, and what is true of it."""
        name = publish(self._gallery.catalog, self._gallery.settings.home, self._backend).name
        now = time.monotonic()
        self.history.live.append(Moment(now, now, name))
        self.history.heads[name] = None
        self.history.states.append(Moment(now, now, (0,)))

    def step(self) -> None:
        """A new version of the beacons, a swap, and the old version deleted before or after it."""
        version, dim = self._version + 1, self._gallery.encoder.card.dim
        old = [beacon_id(probe, self._version, rank) for probe in range(PROBES) for rank in range(RANKS)]
        self._change((self._version, version), lambda: self._gallery.add(beacons(version, dim)))
        before = self._rng.random() < 0.5
        if before:
            self._change((version,), lambda: self._gallery.delete(old))
        self._swap()
        if not before:
            self._change((version,), lambda: self._gallery.delete(old))
        self._version = version

    def _change(self, state: Versions, make: Callable[[], object]) -> None:
        begun = time.monotonic()
        make()
        self.history.states.append(Moment(begun, time.monotonic(), state))

    def _swap(self) -> None:
        ways = {"rebuilt over HTTP": self._rebuilt, "other head": self._other_head}
        if self._last is not None:
            ways["rolled back"] = self._rolled_back
        kind = self._rng.choice(list(ways))
        begun = time.monotonic()
        name = ways[kind]()
        self.history.live.append(Moment(begun, time.monotonic(), name))
        self.kinds[kind] += 1

    @property
    def _live(self) -> str:
        return str(self.history.live[-1].value)

    def _rebuilt(self) -> str:
        with Client(self._rng.choice(self._ports)) as client:
            status, job = client.post("/v1/rebuilds", {"backend": self._backend})
            if status != 202:
                raise SystemExit(f"A rebuild was refused: {status} {job}")
            while job["state"] == "running":
                time.sleep(0.02)
                _, job = client.get(f"/v1/rebuilds/{job['id']}")
        if job["state"] != "done":
            raise SystemExit(f"A rebuild ended as {job['state']}: {job['message']}")
        self._last = (job["id"], self._live)
        self.history.heads[job["generation"]] = self.history.heads[self._live]
        return str(job["generation"])

    def _other_head(self) -> str:
        head = None if self.history.heads[self._live] else self._head
        catalog, home = self._gallery.catalog, self._gallery.settings.home
        name = publish(catalog, home, self._backend, adapter=head.sha256 if head else "").name
        self._last = None
        self.history.heads[name] = head
        return name

    def _rolled_back(self) -> str:
        if self._last is None:
            raise ValueError("Expected a rebuild to roll back.")
        (job, before), self._last = self._last, None
        with Client(self._rng.choice(self._ports)) as client:
            status, told = client.post(f"/v1/rebuilds/{job}/rollback", {})
        if (status, told.get("generation")) != (200, before):
            raise SystemExit(f"A rollback to {before} was answered with {status} {told}")
        return before


def measure(plan: Plan, folder: Path) -> Outcome:
    """One run in an empty folder."""
    outcome = Outcome()
    settings = Settings(home=folder / "home", encoder=ENCODER)
    with ExitStack() as stack:
        gallery = stack.enter_context(Gallery.open(settings, create=True))
        fill(gallery, plan.cases)
        ports = tuple(stack.enter_context(served(settings.home, folder / f"log{n}")).port for n in range(2))
        swapper = Swapper(gallery, ports, plan)
        swapper.begin()
        with _clients(Crowd(ports, plan.asking, plan.writing, plan.period, plan.seed)) as pipe:
            first = _swapped(swapper, plan)
            pipe.send("stop")
            told = pipe.recv()
        judge = Judge(swapper.history, gallery.fingerprint, gallery.encoder.card.dim)
        _judged(outcome, told, judge, first)
    outcome.kinds = swapper.kinds
    return outcome


@contextmanager
def _clients(crowd: Crowd) -> Iterator[Connection]:
    """A process of clients at work, and the way to tell it to stop; ended with the block, whatever happens in it."""
    mine, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=run, args=(crowd, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield mine
    finally:
        mine.close()
        process.join(30)
        process.kill()


def _swapped(swapper: Swapper, plan: Plan) -> float:
    """When the first swap was begun; on return all of them are done."""
    time.sleep(plan.steady)
    first = time.monotonic()
    for n in range(plan.swaps):
        time.sleep(max(0.0, first + n * plan.seconds / plan.swaps - time.monotonic()))
        swapper.step()
    time.sleep(max(0.0, first + plan.seconds - time.monotonic()))
    return first


def _judged(outcome: Outcome, told: Told, judge: Judge, first: float) -> None:
    warm = min((answer.asked for answer in told.answers), default=first) + 1.0  # connections are made in the first
    for answer in told.answers:
        stood_still = any(answer.asked < end and answer.answered > begin for begin, end in told.stood_still)
        if answer.asked >= first and not stood_still:
            outcome.swapping.append(answer.answered - answer.asked)
        elif warm < answer.asked and answer.answered < first and not stood_still:
            outcome.steady.append(answer.answered - answer.asked)
        if fault := judge.fault(answer):
            outcome.mixed.append(fault)
    outcome.errors = [what for _, what in told.errors]
    outcome.written = told.written
    outcome.stood_still = sum(end - begin for begin, end in told.stood_still)


def line_of(phase: str, seconds: Sequence[float]) -> str:
    p50, p99 = (float(np.percentile(seconds, at)) * 1e3 for at in (50, 99))
    return f"| {phase} | {len(seconds)} | {p50:.1f} | {p99:.1f} | {max(seconds) * 1e3:.0f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--steady", type=float, default=120.0, help="seconds without swaps before")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--backend", default="exact")
    parser.add_argument("--period", type=float, default=1.0, help="seconds between two questions of a client")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    plan = Plan(
        asked.swaps, asked.minutes * 60, asked.steady, asked.cases, asked.seed,
        period=asked.period, backend=asked.backend,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="precedent-swaps-") as folder:
        outcome = measure(plan, Path(folder))
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.kinds.items()))
    print(
        f"{sum(outcome.kinds.values())} swaps in {asked.minutes:g} min ({kinds}), {outcome.written} rounds of writers."
    )
    if outcome.stood_still:
        print(f"The machine stood still for {outcome.stood_still:.0f} s of that.")
    print(f"{len(outcome.errors)} errors, {len(outcome.mixed)} mixed or stale answers.")
    print("\n| phase | answers | p50 ms | p99 ms | slowest ms |\n|---|---|---|---|---|")
    print(line_of("steady", outcome.steady) + "\n" + line_of("swapping", outcome.swapping))
    print(f"\np99 {outcome.slower:.2f} times that of steady; at most {SLOWER:g} is promised.")
    for fault in (outcome.errors + outcome.mixed)[:10]:
        print(f"- {fault}")
    return int(bool(outcome.errors or outcome.mixed) or outcome.slower > SLOWER)


if __name__ == "__main__":
    raise SystemExit(main())
