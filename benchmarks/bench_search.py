"""Search plans side by side in one run, on the same real vectors: ours, FAISS, hnswlib, usearch, Milvus Lite, pgvector.

    python -m benchmarks.bench_search [--count 200000] [--encoder compact] [--vectors FILE.npy] [--only NAME ...]
                                      [--seconds 3] [--plot FILE.svg]

Vectors are those of the pictures and slices of ../shared by ``--encoder`` (or the rows of a .npy file), grown to
``--count`` by points between neighbours; queries are real images held out of both. Recall is that of the 10 nearest
against exact search. In the tables a contender's effort is raised until it reaches 0.99, or to its end ("short");
ours take what they measured for themselves when they were built, and have a second line where less is enough. One
client asks one query at a time, then 16 do at once, for ``--seconds`` each; a batch is all queries in one call. Under a
filter a plan may return only a share of the vectors, chosen at random or lying together. The first query in each scope
is timed apart: some plans prepare for what is asked again. Who can't take part is named with the reason.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.search.contender import K
from benchmarks.search.contenders import NAMES
from benchmarks.search.measure import Measured, Questions
from benchmarks.search.oracle import worst_of
from benchmarks.search.plot import plot
from benchmarks.search.scopes import scopes_of
from benchmarks.search.table import tables
from benchmarks.search.trial import Left, Trial, tried
from retrieval.threads import wait_briefly
from retrieval.types import UnitRows

ROOT = Path(__file__).resolve().parents[1]


def real_vectors(stated: Path | None, encoder: str) -> UnitRows:
    """float32 [n, dim]; SystemExit where there are no images to make them of."""
    if stated:
        return np.asarray(np.load(stated), np.float32)
    from benchmarks.evaluate_sets import default_sets
    from benchmarks.real_vectors import embedded

    root = default_sets().parent
    folders = [root / "data", root / "volumes"]
    if not all(folder.is_dir() for folder in folders):
        raise SystemExit(f"Expected real images under {root}, or --vectors FILE.npy; found neither.")
    return embedded(folders, encoder)


def prepared(real: UnitRows, count: int, seconds: float, folder: Path) -> Trial:
    """The rows go to a file, so that this process does not hold them while others do."""
    from benchmarks.real_vectors import grown  # here: the processes of contenders have no use for what it imports

    measured = grown(real, count)
    np.save(folder / "rows.npy", measured.rows)
    scopes = scopes_of(measured.rows)
    worst = tuple(worst_of(measured.rows, measured.queries, scope) for scope in scopes)
    return Trial(folder / "rows.npy", Questions(measured.queries, scopes, worst, seconds))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--encoder", default="compact")
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--only", nargs="*", default=list(NAMES), choices=NAMES)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args(arguments)
    wait_briefly()
    real = real_vectors(asked.vectors, asked.encoder)
    size = f"{asked.count} x {real.shape[1]}"
    source = f"{asked.vectors.name if asked.vectors else asked.encoder}; {len(real)} real ones"
    found: list[Measured] = []
    left: list[Left] = []
    with tempfile.TemporaryDirectory(prefix="precedent-search-") as folder:
        trial = prepared(real, asked.count, asked.seconds, Path(folder))
        for name in asked.only:
            print(f"{name} ...", file=sys.stderr)
            told = tried(name, trial)
            (found if isinstance(told, Measured) else left).append(told)  # type: ignore[arg-type]
    print(f"{size} ({source}), {len(trial.questions.queries)} queries, k = {K}.\n")
    print(tables(found, left, trial.questions.scopes, asked.count))
    if asked.plot:
        plot(found, f"{size} real image vectors, no filter", asked.plot)
        print(f"\n![Recall against speed of {len(found)} search plans]({asked.plot.name})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
