"""A published index damaged on disk, again and again: is it ever searched?

    python -m benchmarks.reliability.damage [--share 1.0] [--seed 0] [--backends exact faiss ...]

On every local backend, 4,000 single bits are flipped, 800 pages of 4 KiB zeroed, 800 files cut short and 100 swapped
(with the file of that name of the generation before, with another file of the same one, or the whole directory with
that of the generation before). Files are drawn evenly among the index's, its keys and the manifest, places evenly
within the file. Every other time the index is opened afterwards, as by a process that starts; else it has been
searched before, and is mapped into memory while its files change.

A blow that leaves every byte of every file as it was (a page of zeroes zeroed) is no damage: bytes are compared before
and after, such a blow is not counted, and another is drawn. All others count, those into padding as well.

A trial counts when the damage is noticed before the first answer, said in a sentence that names the way out, and the
answers, now made of the vectors in SQL with no help from anybody, are those of NumPy over the same vectors, to the last
bit. At the end ``verify --repair`` must leave a sound index that is searched again. Exits 1 when one does not count.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.reliability.blows import BLOWS, Blow, contents
from benchmarks.vectors import FINGERPRINT, unit_rows
from retrieval.catalog import Binding, Catalog
from retrieval.generations import generations_folder
from retrieval.indexes import backend_names
from retrieval.live import LiveIndex
from retrieval.publish import publish
from retrieval.types import Case, CaseKind, EmbeddedCase, Embedding, UnitRows
from retrieval.verify import verify

DIM = 48
K = 10
BACKENDS = (*(name for name in backend_names() if name != "milvus"), "faiss:IVF8,SQ8,nprobe=8")
CASES = 1500
CASES_OF = {"fastscan": 10_500}  # below 10,000 it keeps no codes
COUNTS = {"bit flips": 4000, "zeroed pages": 800, "truncations": 800, "swapped files": 100}


@dataclass(frozen=True, slots=True)
class Ground:
    """A gallery with two sound generations, vectors that came since, and deleted ones in either.

    ``sound``: a copy of its generations, from which each trial starts. ``truth``: keys, ascending, and similarities
    [q, n] of the ``queries``, by NumPy from what is in SQL.
    """

    catalog: Catalog
    home: Path
    sound: Path
    queries: UnitRows
    truth: tuple[list[list[int]], list[list[float]]]

    def opened(self) -> LiveIndex:
        """As a process that starts would have it, before its first answer."""
        return LiveIndex(self.catalog, self.home, DIM, FINGERPRINT)

    def answers(self, live: LiveIndex) -> tuple[list[list[int]], list[list[float]]]:
        keys, similarities, _ = live.search(self.queries, K)
        return keys.tolist(), similarities.tolist()


@dataclass(frozen=True, slots=True)
class Trial:
    """``blow``: what was done, "" when no byte changed. ``fault``: "" or how it went unnoticed or was answered."""

    blow: str
    fault: str


def add(catalog: Catalog, first: int, count: int) -> None:
    rows = unit_rows(np.random.default_rng(first), count, DIM)
    facts = ((Case(f"{n:016d}", CaseKind.IMAGE, content_sha256=f"{n:064x}"), row) for n, row in enumerate(rows, first))
    embedded = [EmbeddedCase(case, Embedding(row, row[None, :], (0,))) for case, row in facts]
    catalog.commit(embedded, fingerprint=FINGERPRINT)


@contextmanager
def ground(folder: Path, backend: str) -> Iterator[Ground]:
    home, count = folder / "home", CASES_OF.get(backend, CASES)
    home.mkdir(parents=True)
    with Catalog.open(f"sqlite:///{home / 'catalog.sqlite3'}", create=True) as catalog:
        catalog.bind(Binding(FINGERPRINT, "benchmark", DIM, "mean", "{}"))
        add(catalog, 1, count)
        publish(catalog, home, backend)
        add(catalog, count + 1, 20)
        catalog.delete([f"{n:016d}" for n in (3, 77, count + 2)])
        publish(catalog, home, backend)
        add(catalog, count + 21, 20)
        catalog.delete([f"{n:016d}" for n in (5, 400, count + 3, count + 22)])
        shutil.copytree(generations_folder(home), folder / "sound")
        queries = unit_rows(np.random.default_rng(0), 3, DIM)
        yield Ground(catalog, home, folder / "sound", queries, by_numpy(catalog, queries))


def by_numpy(catalog: Catalog, queries: UnitRows) -> tuple[list[list[int]], list[list[float]]]:
    """The K best: all scored in float64, rounded, sorted with ties by key."""
    pieces = list(catalog.vectors(0))
    keys, rows = np.concatenate([piece[0] for piece in pieces]), np.concatenate([piece[1] for piece in pieces])
    scores = [(rows.astype(np.float64) * query).sum(axis=1).astype(np.float32) for query in queries]
    best = [np.lexsort((keys, -each))[:K] for each in scores]
    return [keys[at].tolist() for at in best], [each[at].tolist() for each, at in zip(scores, best, strict=True)]


def trial(on: Ground, blow: Blow, rng: np.random.Generator, *, open_before: bool) -> Trial:
    """Restore, hit, ask. ``open_before``: the index has answered before, and has its files mapped."""
    directory, before = restore(on)
    live = on.opened()
    if open_before:
        live.refresh()
        on.answers(live)
    sound = contents(directory)
    done = blow(directory, before, rng)
    if contents(directory) == sound:
        return Trial("", "")
    live.refresh()
    if live.generation or not live.damaged:
        return Trial(done, "served, and not noticed")
    if "rebuild the index" not in live.damaged:
        return Trial(done, f"noticed, but the sentence does not help: {live.damaged}")
    return Trial(done, "" if on.answers(live) == on.truth else "answered wrongly")


def restore(on: Ground) -> tuple[Path, Path]:
    """The live generation and the one before as they were published, with the times their files had."""
    root, rows = generations_folder(on.home), on.catalog.generations()
    for row in rows:
        shutil.rmtree(root / row.name, ignore_errors=True)
        shutil.copytree(on.sound / row.name, root / row.name)
    live = next(row.name for row in rows if row.state == "live")
    return root / live, root / next(row.name for row in rows if row.name != live)


def sound_again(on: Ground) -> str:
    """After a trial: "" when a repair leaves an index without findings that is searched again."""
    report = verify(on.catalog, on.home, repair=True)
    live = on.opened()
    live.refresh()
    whole = live.generation and live.delta == 0 and on.answers(live) == on.truth
    return "" if report.repaired and report.ok and whole else f"not repaired: {report.findings} {live.damaged}"


def measure(backend: str, counts: dict[str, int], rng: np.random.Generator) -> tuple[Counter[str], int]:
    """Trials by kind on one backend, and how many of them do not count."""
    done: Counter[str] = Counter()
    faults = []
    with tempfile.TemporaryDirectory(prefix="precedent-damage-") as folder, ground(Path(folder), backend) as on:
        for kind, count in counts.items():
            while done[kind] < count:
                told = trial(on, BLOWS[kind], rng, open_before=done[kind] % 2 == 1)
                done[kind] += bool(told.blow)
                done["nothing changed"] += not told.blow
                faults += [f"{told.blow}: {told.fault}"] if told.fault else []
        faults += [fault] if (fault := sound_again(on)) else []
    for fault in faults:
        print(f"{backend}: {fault}", flush=True)
    return done, len(faults)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of all the trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backends", nargs="*", default=list(BACKENDS))
    asked = parser.parse_args()
    logging.getLogger("retrieval").setLevel(logging.ERROR)  # it tells of each damage
    backends, rng = asked.backends, np.random.default_rng(asked.seed)
    counts = {kind: max(1, round(count * asked.share / len(backends))) for kind, count in COUNTS.items()}
    print(f"| backend | {' | '.join(counts)} | nothing changed, not counted | not as promised | seconds |")
    print(f"|---|{'---|' * len(counts)}---|---|---|")
    short = 0
    for backend in backends:
        began = time.monotonic()
        done, faults = measure(backend, counts, rng)
        told = " | ".join(str(done[kind]) for kind in (*counts, "nothing changed"))
        print(f"| {backend} | {told} | {faults} | {time.monotonic() - began:.0f} |", flush=True)
        short += faults
    return int(short > 0)


if __name__ == "__main__":
    raise SystemExit(main())
