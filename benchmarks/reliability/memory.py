"""Rebuilds of the index with less memory than they need.

    python -m benchmarks.reliability.memory [--cases 100000] [--backends exact,faiss,...]

A gallery is filled and its index built; then, for every local backend, ``precedent rebuild`` is run freely, to see what
it needs, and again with 40 to 90 % of that. What is meant by it is memory of its own beyond that of a command that only
opens the gallery (``limited``). A run counts when

* it ends with exit code 0, or with 2 and one sentence that names memory: no traceback, no signal;
* the old generation serves when it failed: the same answers from a gallery that was open all along;
* nothing is left behind, and ``verify`` finds nothing.

After the failures the same command runs freely and must succeed. Its peak, with every page of the files that it maps,
must be at most 1.5 times the index and 512 MB. Exits 1 when something does not count.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.reliability.limited import Held
from retrieval.gallery import Gallery
from retrieval.indexes import backend_names
from retrieval.publish import publish
from retrieval.settings import Settings
from retrieval.types import Case, CaseKind, EmbeddedCase, Embedding, UnitRows
from retrieval.verify import verify
from tests.processes import REPOSITORY, environment

SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BATCH = 1000
PATTERNS = 24  # directions that the vectors vary in, as embeddings do
REFUSED = 2
SPARE_BYTES, TIMES_INDEX = 512 << 20, 1.5


@dataclass(frozen=True, slots=True)
class Run:
    """One rebuild. ``share`` of the memory it needs, 0 for all it likes; ``wrong``: "" or why it does not count."""

    backend: str
    share: float
    limit: int
    code: int
    told: str
    held: Held
    wrong: str = ""


def made_up(count: int, dim: int) -> Iterator[list[EmbeddedCase]]:
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((PATTERNS, dim)).astype(np.float32)
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        rows = rng.standard_normal((size, PATTERNS)).astype(np.float32) @ patterns
        rows += rng.standard_normal(rows.shape).astype(np.float32)
        yield [_case(start + n, row[None, :] / np.linalg.norm(row)) for n, row in enumerate(rows)]


def _case(number: int, rows: UnitRows) -> EmbeddedCase:
    name = f"case{number:012d}"
    case = Case(name, CaseKind.IMAGE, content_sha256=f"content {name}", pixel_sha256=f"pixels {name}")
    return EmbeddedCase(case, Embedding(rows[0], rows, (0,)))


@dataclass(frozen=True, slots=True)
class Trial:
    """A gallery that is open all along."""

    gallery: Gallery
    folder: Path

    @property
    def home(self) -> Path:
        return self.gallery.settings.home

    def answers(self) -> tuple[str, list[tuple[str, float]]]:
        """The live generation, and what is like the first case."""
        found = self.gallery.similar_to(f"case{0:012d}", k=20)
        return found.generation, [(hit.case.case_id, hit.similarity) for hit in found.hits]

    def command(self, *arguments: str, limit: int = 0) -> tuple[subprocess.CompletedProcess[str], Held]:
        figures = self.folder / "figures"
        started = [sys.executable, "-m", "benchmarks.reliability.limited", str(figures), str(limit), *arguments]
        done = subprocess.run(
            started, capture_output=True, text=True, cwd=REPOSITORY, env=environment(self.home), check=False
        )
        return done, Held(**json.loads(figures.read_text()))

    def run(self, backend: str, share: float, limit: int) -> Run:
        """One rebuild, and what must be true after it."""
        generation, before = self.answers()
        done, held = self.command("rebuild", "--index", backend, limit=limit)
        told, wrong = done.stderr.strip(), ""
        now, after = self.answers()
        if done.returncode not in {0, REFUSED}:
            wrong = f"exit code {done.returncode}: {told[-600:]}"
        elif done.returncode == REFUSED and ("memory" not in told or not _is_a_sentence(told)):
            wrong = f"it only says: {told[-600:]}"
        elif (now == generation) != (done.returncode == REFUSED):
            wrong = f"exit code {done.returncode}, {now} is live, {generation} was"
        elif not _alike(before, after):
            wrong = "other answers than before"
        elif left := [path.name for path in (self.home / "generations").glob(".building-*")]:
            wrong = f"left behind: {left}"
        return Run(backend, share, limit, done.returncode, told, held, wrong)

    def base(self) -> int:
        """What a command holds of its own that only opens the gallery."""
        publish(self.gallery.catalog, self.home, "exact")  # which keeps nothing in memory
        return self.command("stats", "--json")[1].data

    def measure(self, backend: str, shares: Sequence[float], base: int) -> Iterator[Run]:
        """Freely, with every share, and freely again."""
        free = self.run(backend, 0, 0)
        yield free
        for share in shares:
            yield self.run(backend, share, base + int(share * (free.held.data - base)))
        again = self.run(backend, 0, 0)
        bound = TIMES_INDEX * self.index_bytes() + SPARE_BYTES
        if again.code:
            again = _wrong(again, f"with all the memory it likes: {again.told}")
        elif again.held.resident > bound:
            again = _wrong(again, f"it held {again.held.resident >> 20} MB, at most {bound / 2**20:.0f} MB is right")
        yield again

    def index_bytes(self) -> int:
        live = self.home / "generations" / self.gallery.state().generation
        return sum(path.stat().st_size for path in live.iterdir())


def _wrong(run: Run, sentence: str) -> Run:
    return Run(run.backend, run.share, run.limit, run.code, run.told, run.held, sentence)


def _is_a_sentence(told: str) -> bool:
    return told.startswith("precedent: ") and len(told.splitlines()) == 1


def _alike(one: Sequence[tuple[str, float]], other: Sequence[tuple[str, float]]) -> bool:
    return [name for name, _ in one] == [name for name, _ in other]


def measure(cases: int, backends: Sequence[str], shares: Sequence[float] = SHARES) -> Iterator[Run]:
    """All runs on one gallery; SystemExit when ``verify`` finds something in the end."""
    with tempfile.TemporaryDirectory(prefix="precedent-memory-") as folder:
        settings = Settings(home=Path(folder) / "home", encoder="classical")
        with Gallery.open(settings, create=True) as gallery:
            for batch in made_up(cases, gallery.encoder.card.dim):
                gallery.add(batch)
            trial = Trial(gallery, Path(folder))
            base = trial.base()
            for backend in backends:
                yield from trial.measure(backend, shares, base)
            if findings := verify(gallery.catalog, settings.home).findings:
                raise SystemExit("At the end: " + " ".join(check.sentence for check in findings))


def main() -> int:
    local = [name for name in backend_names() if name != "milvus"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--backends", default=",".join(local))
    asked = parser.parse_args()
    print("| backend | of the memory needed | limit | exit code | held, of its own | with mapped files |")
    print("|---|---|---|---|---|---|")
    wrong = failed = 0
    for run in measure(asked.cases, asked.backends.split(",")):
        share, limit = (f"{run.share:.0%}", f"{run.limit >> 20} MB") if run.share else ("all", "")
        row = f"| {run.backend} | {share} | {limit} | {run.code} | {run.held.data >> 20} MB |"
        print(f"{row} {run.held.resident >> 20} MB |", flush=True)
        wrong, failed = wrong + bool(run.wrong), failed + bool(run.code)
        if run.wrong:
            print(run.wrong, file=sys.stderr)
    print(f"{failed} rebuilds failed, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
