"""How long a gallery of 100,000 vectors of 512 takes to open and answer its first query.

    python -m benchmarks.bench_open [--count 100000] [--dim 512] [--repeats 5] [--backend exact]

Vectors are seeded and clustered. Two ways: everything in the exact delta, replayed from SQL, and everything in a
published generation. Each run is a process of its own, timed from before ``Gallery.open`` to after the answer; what
the interpreter needs to start and import is not counted. Exits 1 when a median is not under 2 s.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from indexer.rebuild import rebuild
from retrieval.encoders.base import EncoderCard
from retrieval.encoders.recipe import Recipe
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import Case, CaseKind, EmbeddedCase, Embedding, Image, Query, UnitRows

WANTED_SECONDS = 2.0
BATCH = 2000


class MeanGrey:
    """An encoder of any dim, so that a gallery of any dim can be opened: the frame's mean spread over a fixed row."""

    def __init__(self, dim: int) -> None:
        self.card = EncoderCard(name="mean-grey", spec="mean-grey", dim=dim, recipe=Recipe("none", (1, 1)))

    def encode(self, images: Sequence[Image]) -> UnitRows:
        rows = np.ones((len(images), self.card.dim), dtype=np.float32)
        rows[:, 0] += [float(image.pixels.mean()) for image in images]
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clustered(count: int, dim: int, seed: int = 5) -> UnitRows:
    """Unit rows around count / 100 centres."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, count // 100), dim), dtype=np.float32)
    rows = centres[rng.integers(0, len(centres), count)] + 0.6 * rng.standard_normal((count, dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def fill(home: Path, count: int, dim: int) -> None:
    with Gallery.open(Settings(home=home), create=True, encoder=MeanGrey(dim)) as gallery:
        rows = clustered(count, dim)
        for start in range(0, count, BATCH):
            gallery.add([_case(n, rows[n]) for n in range(start, min(start + BATCH, count))])


def _case(n: int, row: UnitRows) -> EmbeddedCase:
    case = Case(
        f"{n:016d}", CaseKind.IMAGE, patient_key=f"{n // 3:032x}", content_sha256=f"{n:064x}", pixel_sha256=f"{n:064x}"
    )
    return EmbeddedCase(case, Embedding(row, row[None, :], (0,)))


def first_answer(home: Path, dim: int) -> float:
    """Seconds from nothing to the first ten hits."""
    row = clustered(200, dim, seed=6)[0]
    started = time.perf_counter()
    with Gallery.open(Settings(home=home), encoder=MeanGrey(dim)) as gallery:
        result = gallery.search(Query(Embedding(row, row[None, :], (0,))), k=10)
        seconds = time.perf_counter() - started
    if len(result.hits) != 10:
        raise SystemExit(f"Expected 10 hits, got {len(result.hits)}.")
    return seconds


def in_own_process(home: Path, options: argparse.Namespace) -> float:
    command = [sys.executable, "-m", "benchmarks.bench_open", "--measure", str(home), "--dim", str(options.dim)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--backend", default="exact")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(first_answer(options.measure, options.dim))
        return 0
    with tempfile.TemporaryDirectory(prefix="precedent-bench-") as temporary:
        home = Path(temporary)
        fill(home, options.count, options.dim)
        delta = [in_own_process(home, options) for _ in range(options.repeats)]
        with Gallery.open(Settings(home=home), encoder=MeanGrey(options.dim)) as gallery:
            rebuild(gallery, backend=options.backend)
        generation = [in_own_process(home, options) for _ in range(options.repeats)]
    print(f"{options.count} vectors of {options.dim}: open and answer the first query, {options.repeats} runs each\n")
    print("| vectors in | median s | slowest s |\n|---|---|---|")
    print(f"| SQL delta | {statistics.median(delta):.2f} | {max(delta):.2f} |")
    print(f"| generation ({options.backend}) | {statistics.median(generation):.2f} | {max(generation):.2f} |")
    return 0 if max(map(statistics.median, (delta, generation))) < WANTED_SECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
