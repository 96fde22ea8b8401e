"""Opening, searching, publishing and verifying stored vectors: ``python benchmarks/vectors.py [count] [dim]``.

Random vectors: the figures are about time, not about neighbours. Ends with 1 when the first answer takes 2 s or more.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from retrieval.catalog import Binding, Catalog
from retrieval.live import LiveIndex
from retrieval.publish import publish
from retrieval.types import Case, CaseKind, EmbeddedCase, Embedding, UnitRows
from retrieval.verify import verify

FINGERPRINT = "benchmark-000000000000"
PROMISED_SECONDS = 2.0


def unit_rows(rng: np.random.Generator, count: int, dim: int) -> UnitRows:
    rows = rng.standard_normal((count, dim), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def fill(catalog: Catalog, count: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    for first in range(1, count + 1, 2000):
        rows = unit_rows(rng, min(2000, count + 1 - first), dim)
        cases = [
            EmbeddedCase(
                Case(f"{n:016d}", CaseKind.IMAGE, content_sha256=f"{n:064x}", pixel_sha256=f"{n:064x}"),
                Embedding(row, row[None, :], (0,)),
            )
            for n, row in enumerate(rows, first)
        ]
        catalog.commit(cases, fingerprint=FINGERPRINT)


def seconds(action: Callable[[], object], times: int = 1) -> float:
    started = time.perf_counter()
    for _ in range(times):
        action()
    return (time.perf_counter() - started) / times


def first_answer(catalog: Catalog, home: Path, dim: int, what: str) -> float:
    """Seconds from nothing to the first answer; then the steady state."""
    rng = np.random.default_rng(1)
    query = unit_rows(rng, 1, dim)
    live = LiveIndex(catalog, home, dim, FINGERPRINT)
    first = seconds(lambda: (live.refresh(), live.search(query, 10)))
    print(
        f"{what:24s} first answer {first:6.3f} s, then {seconds(lambda: live.search(query, 10), 20) * 1e3:6.2f} ms",
        end="",
    )
    for share in (0.01, 0.1, 0.5):
        allowed = np.flatnonzero(rng.random(len(live)) < share) + 1
        print(f", {share:.0%} allowed {seconds(lambda a=allowed: live.search(query, 10, a), 10) * 1e3:6.2f} ms", end="")
    print(f", refresh {seconds(live.refresh, 200) * 1e6:4.0f} us")
    return first


def main(count: int = 100_000, dim: int = 512) -> int:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with Catalog.open(f"sqlite:///{home / 'catalog.sqlite3'}", create=True) as catalog:
            catalog.bind(Binding(FINGERPRINT, "benchmark", dim, "mean", "{}"))
            fill(catalog, count, dim)
            slowest = first_answer(catalog, home, dim, "SQL alone")
            for backend in ("exact", "faiss:SQfp16", "faiss:SQ8"):
                print(f"{'publish ' + backend:24s} {seconds(lambda b=backend: publish(catalog, home, b)):6.2f} s")
                slowest = max(slowest, first_answer(catalog, home, dim, f"generation {backend}"))
            print(f"{'verify':24s} {seconds(lambda: verify(catalog, home)):6.2f} s")
    print(f"slowest first answer {slowest:.3f} s, promised under {PROMISED_SECONDS} s for {count} x {dim}")
    return int(slowest >= PROMISED_SECONDS)


if __name__ == "__main__":
    sys.exit(main(*(int(value) for value in sys.argv[1:])))
