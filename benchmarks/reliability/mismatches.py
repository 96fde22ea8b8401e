"""Index and database that disagree in every way we know: does ``verify`` say so, by name and number, and mend it?

    python -m benchmarks.reliability.mismatches [--rounds 20] [--count 1000000] [--dims 64] [--seed 0]

First each mismatch of ``plants`` alone: planted ``--rounds`` times into a gallery of 1,500 cases, as many cases as
chance says. ``verify`` must find just what was planted, with the right number; ``verify --repair`` must leave nothing
to be found, and a search must give what NumPy gives over what is then on file.

Then at size, for each of ``--dims``: how long ``verify`` takes on a sound gallery of ``--count`` cases, what it finds
of hundreds of mismatches planted into it at once, and what a repair leaves. Exits 1 when something is not found, is
found that was not planted, is left, or when ``verify`` takes more than a minute.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.reliability.damage import Ground, by_numpy, ground
from benchmarks.reliability.forgeries import Gallery
from benchmarks.reliability.plants import ALONE, together
from benchmarks.vectors import FINGERPRINT, fill
from retrieval.catalog import Binding, Catalog
from retrieval.publish import publish
from retrieval.verify import verify

PROMISED_SECONDS = 60.0


def findings(gallery: Gallery) -> dict[str, int]:
    return {check.name: check.count for check in verify(gallery.catalog, gallery.home).findings}


def alone(name: str, rng: np.random.Generator) -> str:
    """One mismatch planted, found and mended; "" or what went otherwise."""
    with tempfile.TemporaryDirectory(prefix="precedent-mismatch-") as folder, ground(Path(folder), "exact") as on:
        wanted = ALONE[name](Gallery(on.catalog, on.home), rng)
        found = findings(Gallery(on.catalog, on.home))
        if "index-wrong" in wanted:
            found.pop("index-unfindable", None)  # a wrong row may be found in the place of right ones
        if found != wanted:
            return f"{name}: found {found}, planted {wanted}"
        return mended(on)


def mended(on: Ground) -> str:
    report = verify(on.catalog, on.home, repair=True)
    live = on.opened()
    live.refresh()
    if not report.ok or live.damaged:
        return f"left after a repair: {report.findings} {live.damaged}"
    return "" if on.answers(live) == by_numpy(on.catalog, on.queries) else "wrong answers after a repair"


@contextmanager
def large(folder: Path, count: int, dim: int) -> Iterator[Gallery]:
    """A sound gallery of random vectors with an exact index."""
    with Catalog.open(f"sqlite:///{folder / 'catalog.sqlite3'}", create=True) as catalog:
        catalog.bind(Binding(FINGERPRINT, "benchmark", dim, "mean", "{}"))
        fill(catalog, count, dim)
        publish(catalog, folder, "exact")
        yield Gallery(catalog, folder)


def at_size(gallery: Gallery, rng: np.random.Generator) -> Iterator[tuple[str, bool]]:
    """What was measured, and whether it is as promised."""
    began = time.monotonic()
    sound = findings(gallery)
    took = time.monotonic() - began
    yield f"verify of a sound gallery {took:.1f} s", took < PROMISED_SECONDS and not sound
    wanted = together(gallery, rng)
    began = time.monotonic()
    found = findings(gallery)
    took = time.monotonic() - began
    told = ", ".join(f"{name} {count}" for name, count in found.items())
    yield f"{sum(found.values())} of {sum(wanted.values())} mismatches found in {took:.1f} s ({told})", found == wanted
    began = time.monotonic()
    report = verify(gallery.catalog, gallery.home, repair=True)
    left = sum(check.count for check in report.findings)
    yield f"repair, with another verify before and after, {time.monotonic() - began:.1f} s: {left} left", report.ok


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="of each mismatch alone")
    parser.add_argument("--count", type=int, default=1_000_000, help="cases of the large galleries")
    parser.add_argument("--dims", type=int, nargs="*", default=[64])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    logging.getLogger("retrieval").setLevel(logging.ERROR)
    rng, short = np.random.default_rng(asked.seed), 0
    for name in ALONE:
        faults = [fault for _ in range(asked.rounds) if (fault := alone(name, rng))]
        print(f"{name}: {asked.rounds - len(faults)} of {asked.rounds} found and mended", *faults[:3], flush=True)
        short += len(faults)
    for dim in asked.dims:
        room = tempfile.TemporaryDirectory(prefix="precedent-mismatch-")
        with room as folder, large(Path(folder), asked.count, dim) as gallery:
            for told, good in at_size(gallery, rng):
                print(f"{asked.count:,} x {dim}: {told}{'' if good else ' - NOT AS PROMISED'}", flush=True)
                short += not good
    return int(short > 0)


if __name__ == "__main__":
    raise SystemExit(main())
