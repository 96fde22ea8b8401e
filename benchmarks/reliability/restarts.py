"""``precedent serve`` killed while it takes uploads and started again: how long until it is ready, what is on file.

    python -m benchmarks.reliability.restarts [--count 30] [--cases 100000] [--seed 0]

A gallery of random vectors with an index. The service is started as users start it and asked for ``/readyz`` until it
says so: the interpreter, the encoder, the decoding workers and the checked index are in that time. What was
acknowledged in earlier lives must be there. Then pictures are uploaded, two in five deleted again, until SIGKILL ends
the service with its workers, up to two seconds after the first. At the end ``verify`` reads everything. Exits 1 when a
case is lost or back, or ``verify`` finds something.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from benchmarks.reliability.concurrent_clients import picture
from retrieval.gallery import Gallery
from retrieval.publish import publish
from retrieval.settings import Settings
from retrieval.types import Case, CaseKind, EmbeddedCase, Embedding
from retrieval.verify import verify
from tests.processes import Served, serving

ENCODER = "classical"


@dataclass(slots=True)
class Lives:
    """``ready``: seconds until each start was ready, ``cpu``: those on a core. ``there`` and ``gone``: acknowledged."""

    ready: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    there: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


def fill(home: Path, cases: int) -> None:
    rng = np.random.default_rng(0)
    with Gallery.open(Settings(home=home, encoder=ENCODER), create=True) as gallery:
        for start in range(0, cases, 2000):
            rows = rng.standard_normal((min(2000, cases - start), gallery.encoder.card.dim), dtype=np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            gallery.add([_case(start + n, row) for n, row in enumerate(rows)])
        publish(gallery.catalog, home, "exact")


def _case(number: int, row: np.ndarray) -> EmbeddedCase:
    name = f"still{number:011d}"
    case = Case(name, CaseKind.IMAGE, content_sha256=f"content {name}", pixel_sha256=f"pixels {name}")
    return EmbeddedCase(case, Embedding(row, row[None, :], (0,)))


def lives(home: Path, folder: Path, count: int, seed: int) -> Lives:
    """``count`` starts, each ended by a kill."""
    told, rng, number = Lives(), random.Random(seed), 0
    for _ in range(count):
        began = time.perf_counter()
        with serving(home, folder / "log") as served:
            while served.client.get("/readyz").status_code != 200:
                time.sleep(0.02)
            told.ready.append(time.perf_counter() - began)
            told.cpu.append(_cpu_seconds(served.process.pid))
            _check(served, told)
            _add(served, told, number := number + 1)
            killer = threading.Timer(rng.uniform(0.0, 2.0), served.kill)
            killer.start()
            number = _write_until_killed(served, told, rng, number)
            killer.join()
    with Gallery.open(home) as gallery:
        told.faults += [f"verify: {check.sentence}" for check in verify(gallery.catalog, home).findings]
    return told


def _check(served: Served, told: Lives) -> None:
    for case_ids, expected in ((told.there, 200), (told.gone, 404)):
        for case_id in case_ids:
            status = served.client.get(f"/v1/cases/{case_id}").status_code
            if status != expected:
                told.faults.append(f"case {case_id}: {status} instead of {expected}")


def _add(served: Served, told: Lives, number: int) -> str:
    """The id of a new case; "" with a fault noted."""
    reply = served.client.post("/v1/cases", files=[("files", ("a.png", picture(number)))])
    if reply.status_code != 201:
        told.faults.append(f"an upload was answered with {reply.status_code}")
        return ""
    case_id = str(reply.json()["files"][0]["case_id"])
    told.there.add(case_id)
    return case_id


def _write_until_killed(served: Served, told: Lives, rng: random.Random, number: int) -> int:
    """The number of the last picture that was sent."""
    while True:
        number += 1
        try:
            case_id = _add(served, told, number)
            if case_id and rng.random() < 0.4:
                told.there.discard(case_id)  # neither is promised until it is answered
                if served.client.delete(f"/v1/cases/{case_id}").status_code == 200:
                    told.gone.add(case_id)
        except httpx.TransportError:
            return number


def _cpu_seconds(pid: int) -> float:
    """Of all threads of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=30, help="starts, each ended by a kill")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="precedent-restarts-") as folder:
        home = Path(folder) / "home"
        fill(home, asked.cases)
        told = lives(home, Path(folder), asked.count, asked.seed)
    for fault in told.faults:
        print(fault, file=sys.stderr)
    print(
        f"{asked.count} kills, {len(told.there)} cases there and {len(told.gone)} gone as acknowledged, "
        f"{len(told.faults)} faults; ready again p50 {np.median(told.ready):.2f} s, p99 "
        f"{np.quantile(told.ready, 0.99):.2f} s (on a core {np.median(told.cpu):.2f} s and "
        f"{np.quantile(told.cpu, 0.99):.2f} s)"
    )
    return int(bool(told.faults))


if __name__ == "__main__":
    raise SystemExit(main())
