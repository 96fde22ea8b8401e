"""Galleries put through random steps, against a dictionary and NumPy.

    python -m benchmarks.reliability.model [--count 5000] [--steps 60] [--seed 0] [--databases sqlite,postgresql]

A Hypothesis state machine draws the steps: cases added and put in the place of others, revised, deleted by id and by
patient; searches by vector and by case, with filters, exclusions and groups; the index rebuilt on every local backend,
rolled back, swapped under the sessions that search; sessions closed and opened again. Every step is taken by one of
three sessions on the same gallery, two in this process and one in a process of its own, so whatever one wrote the next
one must read. Galleries start empty or with up to 1,300 cases, so that codes are
trained, lists probed and masks used.

Every outcome, key, hit, order and similarity (to the last bit) must be what ``expected`` says, and at the end of each
gallery ``verify`` must find nothing. Where an answer says that it is not exhaustive, each hit must be one that may be
returned, with its right similarity, in order, and as many as there should be. Prints steps and divergences; exits 1
after a divergence, which Hypothesis shows as the shortest list of steps it found.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from benchmarks.reliability import backups
from benchmarks.reliability.places import Places, places
from benchmarks.reliability.sessions import Gate, Remote, Session
from benchmarks.reliability.steps import STARTS, Model, Tally

BATCH = 250  # galleries of one seed


@contextmanager
def three_sessions() -> Iterator[list[Gate]]:
    """Two in this process, one in another."""
    remote = Remote()
    try:
        yield [Session(), Session(), remote]
    finally:
        remote.end()


def walk(
    rooms: Places, gates: Sequence[Gate], tally: Tally, count: int, steps: int, number: int,
    *, shrink: bool = True, starts: Sequence[int] = STARTS,
) -> None:  # fmt: skip
    """``count`` galleries through up to ``steps`` steps each, drawn from the seed ``number``. Raises what diverges.

    ``shrink``: look for the shortest steps that lead there, which takes a while. ``starts``: how many cases there
    may be at first.
    """
    facts = {"gates": gates, "rooms": rooms, "tally": tally, "starts": starts}
    chosen = settings(
        max_examples=count, stateful_step_count=steps, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate, *([Phase.shrink] * shrink)),
    )  # fmt: skip
    run_state_machine_as_test(seed(number)(type("Galleries", (Model,), facts)), settings=chosen)


def measure(kind: str, server: str, count: int, steps: int, first: int) -> tuple[Tally, int]:
    """What was done on one database, in batches of a seed each, and how many of those diverged."""
    tally, diverged, began = Tally(), 0, time.monotonic()
    with places(server if kind == "postgresql" else "") as rooms, three_sessions() as gates:
        for number, start in enumerate(range(0, count, BATCH), start=first):
            try:
                walk(rooms, gates, tally, min(BATCH, count - start), steps, number)
            except Exception:  # noqa: BLE001 - whatever it raises, it did something else than it should
                traceback.print_exc()
                diverged += 1
            rate = tally.steps / (time.monotonic() - began)
            print(
                f"{kind}, seed {number}: {tally.galleries} galleries, {tally.steps} steps ({rate:.0f} a second), "
                f"{tally.searches} searches ({tally.loose} not exhaustive), {diverged} divergences",
                flush=True,
            )
    return tally, diverged


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="galleries, over all databases")
    parser.add_argument("--steps", type=int, default=60, help="of each gallery")
    parser.add_argument("--seed", type=int, default=0, help=f"the first one; each does for {BATCH} galleries")
    parser.add_argument("--databases", default="sqlite,postgresql")
    asked = parser.parse_args()
    kinds = asked.databases.split(",")
    with backups.a_server() if "postgresql" in kinds else nullcontext("") as server:
        done = [measure(kind, server, -(-asked.count // len(kinds)), asked.steps, asked.seed) for kind in kinds]
    plans = sum((tally.plans for tally, _ in done), Counter[str]())
    print("Plans of the answers: " + ", ".join(f"{name} {times}" for name, times in plans.most_common()))
    steps, diverged = sum(tally.steps for tally, _ in done), sum(bad for _, bad in done)
    print(f"{steps} steps through {sum(tally.galleries for tally, _ in done)} galleries, {diverged} divergences")
    return int(diverged > 0)


if __name__ == "__main__":
    raise SystemExit(main())
