"""Search plans side by side in one run: ours, FAISS, hnswlib and usearch, on the same real vectors.

    python -m benchmarks.bench_search [--count 200000] [--encoder compact] [--vectors FILE.npy] [--only NAME ...]

Vectors are those of the pictures and slices of ../shared by ``--encoder`` (or the rows of a .npy file), grown to
``--count`` by points between neighbours; queries are real images held out of both. Recall is that of the 10 nearest
against exact search; a library's own effort is raised until it reaches 0.99, or to its end. Latency is of one query
at a time, throughput of all of them at once. Under a filter each plan may return only a random share of the vectors;
a library without a filter of its own searches wider and drops the rest. A library that is not installed is left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluate_sets import default_sets
from benchmarks.real_vectors import Measured, embedded, grown
from retrieval.indexes import index_type, split_backend
from retrieval.indexes.library import load_faiss
from retrieval.threads import wait_briefly
from retrieval.types import Keys, UnitRows

K = 10
ENOUGH = 0.99
SHARES = (0.1, 0.01, 0.001)
THREADS = 2
MOST = 2000  # asked for at most where the rest is dropped
ASKED = 100  # queries by which a library's effort is chosen, and that are asked under a filter
EFFORTS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)

# Keys [q, k] for queries, given k' wanted and the allowed keys or None; keys are positions + 1.
Search = Callable[[UnitRows, Keys | None], Keys]


@dataclass(frozen=True, slots=True)
class Contender:
    """``searches``: by effort, from least to most."""

    name: str
    build_seconds: float
    bytes_per_vector: float
    searches: tuple[tuple[str, Search], ...]


def ours(backend: str, rows: UnitRows, folder: Path) -> Contender:
    name, options = split_backend(backend)
    count, dim = rows.shape
    batches = ((np.arange(n, min(n + 4096, count)) + 1, rows[n : n + 4096]) for n in range(0, count, 4096))
    started = time.perf_counter()
    index = index_type(name).build(folder, batches, dim, options)
    seconds = time.perf_counter() - started
    resident = sum(path.stat().st_size for path in folder.iterdir() if path.name != "vectors.npy")
    stated = f"{index.name}:{index.options}" if index.options else index.name
    search: Search = lambda queries, allowed: index.search(queries, K, allowed)[0]  # noqa: E731
    return Contender(f"precedent {stated}", seconds, resident / count, ((stated, search),))


def faiss_flat(rows: UnitRows) -> Contender:
    faiss = load_faiss()
    index = faiss.IndexFlatIP(rows.shape[1])
    started = time.perf_counter()
    index.add(rows)
    seconds = time.perf_counter() - started

    def search(queries: UnitRows, allowed: Keys | None) -> Keys:
        parameters = None if allowed is None else faiss.SearchParameters(sel=_selector(allowed, len(rows)))
        return np.asarray(index.search(queries, K, params=parameters)[1]) + 1

    return Contender("FAISS Flat", seconds, 4.0 * rows.shape[1], (("", search),))


def faiss_hnsw(rows: UnitRows) -> Contender:
    faiss = load_faiss()
    index = faiss.IndexHNSWFlat(rows.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 150
    started = time.perf_counter()
    index.add(rows)
    seconds = time.perf_counter() - started

    def at(ef: int) -> Search:
        def search(queries: UnitRows, allowed: Keys | None) -> Keys:
            chosen = {} if allowed is None else {"sel": _selector(allowed, len(rows))}
            parameters = faiss.SearchParametersHNSW(efSearch=ef, **chosen)
            return np.asarray(index.search(queries, K, params=parameters)[1]) + 1

        return search

    each = 4.0 * rows.shape[1] + 2.2 * 16 * 4
    return Contender("FAISS HNSW16", seconds, each, tuple((f"ef={ef}", at(ef)) for ef in EFFORTS))


def hnswlib(rows: UnitRows) -> Contender:
    import hnswlib as library

    index = library.Index("ip", rows.shape[1])
    index.init_index(len(rows), ef_construction=150, M=16)
    started = time.perf_counter()
    index.add_items(rows, num_threads=THREADS)
    seconds = time.perf_counter() - started

    def at(ef: int) -> Search:
        def search(queries: UnitRows, allowed: Keys | None) -> Keys:
            wanted = _wider(ef, len(rows), allowed)
            index.set_ef(max(ef, wanted))
            keys = np.asarray(index.knn_query(queries, wanted, num_threads=THREADS if len(queries) > 1 else 1)[0])
            return _kept(keys.astype(np.int64) + 1, allowed)

        return search

    each = 4.0 * rows.shape[1] + 2.2 * 16 * 4
    return Contender("hnswlib M16", seconds, each, tuple((f"ef={ef}", at(ef)) for ef in EFFORTS))


def usearch(rows: UnitRows) -> Contender:
    from usearch.index import Index

    index = Index(ndim=rows.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=150)
    started = time.perf_counter()
    index.add(np.arange(len(rows)), rows, threads=THREADS)
    seconds = time.perf_counter() - started

    def at(ef: int) -> Search:
        def search(queries: UnitRows, allowed: Keys | None) -> Keys:
            index.expansion_search = ef
            matches = index.search(queries, _wider(ef, len(rows), allowed), threads=THREADS)
            return _kept(np.atleast_2d(np.asarray(matches.keys, np.int64)) + 1, allowed)

        return search

    each = 2.0 * rows.shape[1] + 2.2 * 16 * 4
    return Contender("usearch f16", seconds, each, tuple((f"ef={ef}", at(ef)) for ef in EFFORTS))


def _wider(ef: int, count: int, allowed: Keys | None) -> int:
    """How many to ask for where what may not be returned is dropped afterwards."""
    return K if allowed is None else min(MOST, count, ef * count // max(1, len(allowed)))


def _kept(keys: Keys, allowed: Keys | None) -> Keys:
    if allowed is None:
        return keys
    kept = np.full((len(keys), K), -1, np.int64)
    for line, found in zip(kept, keys, strict=True):
        passed = found[np.isin(found, allowed)][:K]
        line[: len(passed)] = passed
    return kept


def _selector(allowed: Keys, count: int) -> Any:
    chosen = np.zeros(count, bool)
    chosen[allowed - 1] = True
    return load_faiss().IDSelectorBitmap(np.packbits(chosen, bitorder="little"))


def contenders(rows: UnitRows, only: list[str]) -> Iterator[Contender]:
    """One at a time: the memory of one is free again before the next is built."""
    makers: dict[str, Callable[[Path], Contender]] = {
        "exact": lambda folder: ours("exact", rows, folder),
        "faiss": lambda folder: ours("faiss", rows, folder),
        "graph": lambda folder: ours("graph", rows, folder),
        "flat": lambda _: faiss_flat(rows),
        "hnsw": lambda _: faiss_hnsw(rows),
        "hnswlib": lambda _: hnswlib(rows),
        "usearch": lambda _: usearch(rows),
    }
    for name, make in makers.items():
        installed = name not in ("hnswlib", "usearch") or find_spec(name) is not None
        if (not only or name in only) and installed:
            with tempfile.TemporaryDirectory() as folder:
                yield make(Path(folder))


def recall(found: Keys, rows: UnitRows, queries: UnitRows, worst: np.ndarray) -> float:
    """Share of the k nearest that were found, equal similarities counted as equal."""
    here = np.where(found > 0, found - 1, 0)
    sims = np.einsum("qkd,qd->qk", rows[here], queries)
    return float(((sims >= worst[:, None] - 1e-5) & (found > 0)).mean())


def worst_of(measured: Measured, allowed: Keys | None) -> np.ndarray:
    """The exact similarity of each query's k-th nearest among what is allowed."""
    faiss = load_faiss()
    chosen = measured.rows if allowed is None else measured.rows[allowed - 1]
    exact = faiss.IndexFlatIP(chosen.shape[1])
    exact.add(np.ascontiguousarray(chosen))
    return np.asarray(exact.search(measured.queries, K)[0])[:, -1]


def timed(search: Search, queries: UnitRows, allowed: Keys | None) -> tuple[float, float, float]:
    """Milliseconds of one query, median and 99th percentile, and queries a second of all at once."""
    search(queries[:8], allowed)
    each = []
    for n in range(len(queries)):
        started = time.perf_counter()
        search(queries[n : n + 1], allowed)
        each.append((time.perf_counter() - started) * 1e3)
    started = time.perf_counter()
    search(queries, allowed)
    return float(np.median(each)), float(np.percentile(each, 99)), len(queries) / (time.perf_counter() - started)


def line_of(contender: Contender, measured: Measured, allowed: Keys | None, worst: np.ndarray) -> str:
    effort, chosen = contender.searches[0]
    for effort, chosen in contender.searches:  # noqa: B007 - the last one stands when none is enough
        few = measured.queries[:ASKED]
        if recall(chosen(few, allowed), measured.rows, few, worst[:ASKED]) >= ENOUGH:
            break
    queries = measured.queries if allowed is None else measured.queries[:ASKED]
    reached = recall(chosen(queries, allowed), measured.rows, queries, worst[: len(queries)])
    median, tail, rate = timed(chosen, queries, allowed)
    return (
        f"| {contender.name} | {effort} | {reached:.4f} | {median:.2f} | {tail:.2f} | {rate:.0f} | "
        f"{contender.build_seconds:.1f} | {contender.bytes_per_vector:.0f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--encoder", default="compact")
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    wait_briefly()
    root = default_sets().parent
    folders = [root / "data", root / "volumes"]
    if not options.vectors and not all(folder.is_dir() for folder in folders):
        raise SystemExit(f"Expected real images under {root}, or --vectors FILE.npy; found neither.")
    real = np.load(options.vectors) if options.vectors else embedded(folders, options.encoder)
    measured = grown(real.astype(np.float32), options.count)
    rng = np.random.default_rng(1)
    scopes: list[Keys | None] = [None]
    scopes += [np.sort(rng.choice(options.count, int(share * options.count), replace=False)) + 1 for share in SHARES]
    worst = [worst_of(measured, allowed) for allowed in scopes]
    tables: list[list[str]] = [[] for _ in scopes]
    for contender in contenders(measured.rows, options.only):
        for table, allowed, of_exact in zip(tables, scopes, worst, strict=True):
            table.append(line_of(contender, measured, allowed, of_exact))
    named = options.vectors.name if options.vectors else options.encoder
    print(
        f"{options.count} x {real.shape[1]} ({named}; {len(real)} real ones), {len(measured.queries)} queries, k = {K}."
    )
    for share, table in zip(("no filter", *(f"{share:.1%} may be returned" for share in SHARES)), tables, strict=True):
        print(f"\n{share}:\n\n| plan | effort | recall@10 | p50 ms | p99 ms | queries/s | build s | bytes/vector |")
        print("|---|---|---|---|---|---|---|---|\n" + "\n".join(table))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
