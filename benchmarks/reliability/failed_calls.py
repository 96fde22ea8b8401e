"""Every write, fsync and rename fails once: nothing is acknowledged falsely, and the old index keeps serving.

    python -m benchmarks.reliability.failed_calls [--count 250] [--coded-cases 10000]

Each step (``failed_steps``: commit, rebuild, backup, restore; ``failed_requests``: uploads, deletions and rebuilds over
HTTP, and the service's start) is done again and again, and each time another one of its system calls that change a file
fails: with EIO once, with EIO from then on, with ENOSPC from then on, and after half of a write. A point counts when

* what was acknowledged is on file, and what was refused is not, in another process;
* whatever failed was told as a sentence of ours that names the reason;
* searches were answered right all the while, by the old generation or the new one, and writing went on afterwards
  in the same process;
* ``verify`` finds nothing, and nothing is left behind.

Exits 1 when a point does not count. ``--count``: at most so many points of a step and kind of fault, spread evenly.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from benchmarks.reliability.failed_requests import KINDS, requests
from benchmarks.reliability.failed_steps import Point, Step, Told, steps
from benchmarks.reliability.failing_calls import FAULTS, Fault, Faults, spread


def measure(step: Step, fault: Fault, count: int) -> Iterator[Point]:
    """Points of one step, ``count`` at most."""
    with tempfile.TemporaryDirectory(prefix="precedent-faults-") as folder:
        before = Path(folder) / "before"
        step.prepare(before)
        calls, point = _point(step, before, Path(folder) / "place", fault, 0)
        if point.wrong or point.refused:
            raise SystemExit(f"{step.name} fails with no fault at all: {point.wrong or 'it was refused'}")
        for nth in spread(calls, count):
            yield _point(step, before, Path(folder) / "place", fault, nth)[1]


def _point(step: Step, before: Path, place: Path, fault: Fault, nth: int) -> tuple[int, Point]:
    """How many calls there were, and the point of the ``nth`` of them."""
    shutil.copytree(before, place)
    faults = Faults.make()
    try:
        told = _in_a_process(step, place, fault, nth, faults)
        wrong = "; ".join(told.broken)
        if not wrong and nth and not faults.failed and not fault.half:
            wrong = "the call that was to fail was never made"
        try:
            wrong = wrong or step.judge(place, told)
        except Exception as error:  # noqa: BLE001 - told with the point
            wrong = f"judging failed: {type(error).__name__}: {error}"
        return faults.seen, Point(step.name, fault, nth, len(told.refused), wrong)
    finally:
        shutil.rmtree(place)


def _in_a_process(step: Step, place: Path, fault: Fault, nth: int, faults: Faults) -> Told:
    """What the step was told, in a child whose calls fail. A child that dies has broken."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        told = Told(fault)
        try:
            faults.obey()
            step.act(place, lambda: faults.armed(place, fault, nth), told)
        except BaseException as error:  # noqa: BLE001 - a child must not go on as its parent
            told.broken.append(f"afterwards: {type(error).__name__}: {error} {traceback.format_exc()[-1500:]}")
        os.write(writer, json.dumps([told.acked, told.refused, told.broken]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if status or not said:
        return Told(fault, broken=[f"the process died with status {status}"])
    return Told(fault, *json.loads(said))


def points(asked: argparse.Namespace) -> Iterator[Iterator[Point]]:
    """Of each step and kind of fault."""
    for step in steps(asked.coded_cases):
        if step.name.startswith(asked.only):
            yield from (measure(step, fault, asked.count) for fault in FAULTS)
    kinds = [kind for kind in KINDS if f"HTTP {kind}".startswith(asked.only)]
    if kinds:
        with requests() as service:
            for kind in kinds:
                yield from (service.measure(kind, fault, asked.count) for fault in FAULTS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=250, help="points of a step and kind of fault, at most")
    parser.add_argument("--coded-cases", type=int, default=10_000, help="cases of fastscan: from 10,000 it has codes")
    parser.add_argument("--only", default="", help="the steps whose names begin so")
    asked = parser.parse_args()
    logging.getLogger("retrieval").setLevel(logging.ERROR)  # that clearing up failed is no news here
    print("| step | fault | points | refused | wrong |\n|---|---|---|---|---|")
    total = short = 0
    for made in points(asked):
        found = list(made)
        wrong = [point for point in found if point.wrong]
        total, short = total + len(found), short + len(wrong)
        refused = sum(point.refused > 0 for point in found)
        print(f"| {found[0].step} | {found[0].fault.name} | {len(found)} | {refused} | {len(wrong)} |", flush=True)
        for point in wrong:
            print(f"{point.step}, {point.fault.name}, call {point.nth}: {point.wrong}", file=sys.stderr)
    print(f"{total} points, {short} wrong")
    return int(short > 0)


if __name__ == "__main__":
    raise SystemExit(main())
