"""From 100,000 to a million vectors: a rebuild from SQL, its memory, and how soon a search is answered.

    python -m benchmarks.bench_scaling [--counts 100000 300000 1000000] [--dim 512] [--encoder compact]
                                       [--vectors FILE.npy]

Vectors are real ones (of the images of ../shared, or the rows of a .npy file), turned to ``--dim`` numbers by a random
matrix, which keeps their geometry, and grown to each count by points between neighbours. They are put into a gallery in
SQLite; a process of its own then rebuilds the index by ``auto`` (what it builds is read back, hashed and measured, as
every rebuild is), and its peak of memory is taken. Queries are real ones held out; recall is against exact search.
A last line has the growth from the least to the most. Exits 1 when a rebuild of the most takes over five minutes.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.bench_search import real_vectors
from benchmarks.real_vectors import Measured, grown
from retrieval.catalog import Catalog
from retrieval.catalog.types import Binding
from retrieval.generations import generations_folder, open_generation
from retrieval.indexes.base import VectorIndex
from retrieval.indexes.library import load_faiss
from retrieval.publish import publish
from retrieval.threads import wait_briefly
from retrieval.types import Case, CaseKind, EmbeddedCase, Embedding, Keys, UnitRows

FINGERPRINT = "benchmark-000000000001"
SECONDS = 300.0
K = 10
_BATCH = 2000
_HEADER = (
    "vectors | index | rebuild s | peak MB | bytes/vector in memory | recall@10 | p50 ms | p99 ms | p50 of a tenth"
)


@dataclass(frozen=True, slots=True)
class Size:
    """Milliseconds of one query; megabytes at the most while it was rebuilt; bytes of a vector in memory."""

    count: int
    seconds: float
    peak: float
    loaded: float
    recall: float
    median: float
    tail: float
    filtered: float

    def row(self, backend: str) -> str:
        return (
            f"| {self.count:,} | {backend} | {self.seconds:.1f} | {self.peak:.0f} | {self.loaded:.0f} | "
            f"{self.recall:.4f} | {self.median:.2f} | {self.tail:.2f} | {self.filtered:.2f} |"
        )


def turned(rows: UnitRows, dim: int) -> UnitRows:
    """Unit rows of ``dim`` numbers whose angles are about those of ``rows`` (Johnson and Lindenstrauss 1984)."""
    matrix = np.random.default_rng(0).standard_normal((rows.shape[1], dim), dtype=np.float32)
    fewer: UnitRows = rows @ matrix
    return fewer / np.linalg.norm(fewer, axis=1, keepdims=True)


def fill(home: Path, rows: UnitRows) -> None:
    with Catalog.open(f"sqlite:///{home / 'catalog.sqlite3'}", create=True) as catalog:
        catalog.bind(Binding(FINGERPRINT, "benchmark", rows.shape[1], "mean", "{}"))
        for start in range(0, len(rows), _BATCH):
            part = range(start, min(start + _BATCH, len(rows)))
            catalog.commit([_case(n, rows[n]) for n in part], fingerprint=FINGERPRINT)


def _case(n: int, row: UnitRows) -> EmbeddedCase:
    case = Case(f"{n:016d}", CaseKind.IMAGE, content_sha256=f"{n:064x}", pixel_sha256=f"{n:064x}")
    return EmbeddedCase(case, Embedding(row, row[None, :], (0,)))


def rebuild_here(home: Path) -> None:
    """Print the generation's name and hash, the seconds, and the most megabytes this process ever held."""
    wait_briefly()
    started = time.perf_counter()
    with Catalog.open(f"sqlite:///{home / 'catalog.sqlite3'}") as catalog:
        manifest = publish(catalog, home, "auto")
    seconds = time.perf_counter() - started
    print(manifest.name, manifest.sha256, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def size_of(measured: Measured) -> tuple[Size, str]:
    with tempfile.TemporaryDirectory(prefix="precedent-scaling-") as folder:
        home = Path(folder)
        fill(home, measured.rows)
        command = [sys.executable, "-m", "benchmarks.bench_scaling", "--rebuild", folder]
        name, sha256, seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        manifest, index = open_generation(generations_folder(home), name, sha256)
        exact = load_faiss().IndexFlatIP(measured.rows.shape[1])
        exact.add(measured.rows)
        worst = exact.search(measured.queries, K)[0][:, -1:]
        recall = float((index.search(measured.queries, K)[1] >= worst - 1e-5).mean())
        tenth = np.sort(np.random.default_rng(1).choice(index.keys(), len(index) // 10, replace=False))
        each, filtered = times(index, measured.queries, None), times(index, measured.queries, tenth)
        facts = manifest.facts
        size = Size(
            count=facts.count,
            seconds=float(seconds),
            peak=float(peak),
            loaded=manifest.bytes_of_a_vector[0],
            recall=recall,
            median=float(np.median(each)),
            tail=float(np.percentile(each, 99)),
            filtered=float(np.median(filtered)),
        )
        return size, f"{facts.backend}:{facts.options}" if facts.options else facts.backend


def times(index: VectorIndex, queries: UnitRows, allowed: Keys | None) -> list[float]:
    """Milliseconds of each query, asked one by one."""
    for query in queries:  # as a service that has run for a while: what is mapped is in memory
        index.search(query[None], K, allowed)
    each = []
    for query in queries:
        started = time.perf_counter()
        index.search(query[None], K, allowed)
        each.append((time.perf_counter() - started) * 1e3)
    return each


def growth(first: Size, last: Size) -> str:
    loaded = last.loaded * last.count / (first.loaded * first.count)
    return (
        f"From {first.count:,} to {last.count:,}, {last.count / first.count:.1f} times as many: rebuild "
        f"{last.seconds / first.seconds:.1f}, memory of the index {loaded:.1f}, p50 "
        f"{last.median / first.median:.1f} times."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--encoder", default="compact")
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--rebuild", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    wait_briefly()
    if options.rebuild:
        rebuild_here(options.rebuild)
        return 0
    real = turned(real_vectors(options.vectors, options.encoder), options.dim)
    print(f"{len(real)} real vectors turned to {options.dim} numbers and grown; 500 queries, k = {K}.\n")
    print(f"| {_HEADER} |\n|{'---|' * (_HEADER.count('|') + 1)}")
    sizes = []
    for count in options.counts:
        size, backend = size_of(grown(real, count))
        sizes.append(size)
        print(size.row(backend), flush=True)
    print("\n" + growth(sizes[0], sizes[-1]))
    return 0 if sizes[-1].seconds <= SECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
