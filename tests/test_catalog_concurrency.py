"""Several processes on one catalog: a reader that replays misses nothing, a killed writer loses nothing it was told."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from retrieval.catalog import Catalog
from tests.databases import FINGERPRINT, embedded

SPAWN = multiprocessing.get_context("spawn")
WRITERS = 3
ROUNDS = 25


def write(url: str, writer: int, start: multiprocessing.synchronize.Barrier) -> None:
    """Batches of several sizes, some of them replacing or deleting what this writer wrote before."""
    with Catalog.open(url) as catalog:
        start.wait()
        for n in range(ROUNDS):
            names = [f"w{writer}-{n}-{i}" for i in range(1 + n % 3)]
            catalog.commit([embedded(name) for name in names], fingerprint=FINGERPRINT)
            if n % 4 == 1:
                again = embedded(f"w{writer}-{n - 1}-0", files=("other",))
                catalog.commit([again], fingerprint=FINGERPRINT, replace=True)
            if n % 4 == 3:
                catalog.delete([f"w{writer}-{n}-0"])


@contextmanager
def processes(*started: BaseProcess) -> Iterator[None]:
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.join(120)
            process.kill()
    assert [process.exitcode for process in started] == [0] * len(started)


def test_a_reader_that_replays_by_key_misses_nothing(catalog: Catalog, database_url: str) -> None:
    start = SPAWN.Barrier(WRITERS + 1)
    seen: list[int] = []
    dead: list[int] = []
    last_tombstone = 0
    writers = [SPAWN.Process(target=write, args=(database_url, n, start)) for n in range(WRITERS)]
    with processes(*writers):
        start.wait()
        finished = False
        while not finished:
            finished = not any(writer.is_alive() for writer in writers)  # one more round after the last has ended
            heads = catalog.heads()
            for keys, _ in catalog.vectors(seen[-1] if seen else 0, upto=heads.last_key, batch=7):
                seen += keys.tolist()
            seqs, keys = catalog.tombstones(last_tombstone)
            dead += keys.tolist()
            last_tombstone = int(seqs[-1]) if len(seqs) else last_tombstone
    assert seen == sorted(set(seen))
    assert dead == list(dict.fromkeys(dead))
    assert set(seen) - set(dead) == set(catalog.select().tolist())
    assert set(seen) | set(dead) == set(range(1, catalog.heads().last_key + 1)), "every key was seen alive or dead"
    assert catalog.count() == WRITERS * (sum(1 + n % 3 for n in range(ROUNDS)) - sum(n % 4 == 3 for n in range(ROUNDS)))


def write_the_same(url: str, start: multiprocessing.synchronize.Barrier) -> None:
    with Catalog.open(url) as catalog:
        start.wait()
        for _ in range(3):
            catalog.commit([embedded(f"case-{n}") for n in range(40)], fingerprint=FINGERPRINT)


def test_the_same_cases_from_many_writers_are_stored_once(catalog: Catalog, database_url: str) -> None:
    start = SPAWN.Barrier(4)
    with processes(*(SPAWN.Process(target=write_the_same, args=(database_url, start)) for _ in range(4))):
        pass
    assert catalog.count() == 40
    assert catalog.heads().last_key == 40


WRITER = """
import sys
from retrieval.catalog import Catalog
from tests.databases import FINGERPRINT, embedded
with Catalog.open(sys.argv[1]) as catalog:
    for n in range(int(sys.argv[2]), 10**6):
        names = [f"case-{n}-{i}" for i in range(3)]
        catalog.commit([embedded(name, slices=20) for name in names], fingerprint=FINGERPRINT)
        gone = catalog.delete([f"case-{n}-0"])
        print(" ".join(names[1:]), *("!" + name for name in gone), flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 6])
def test_a_killed_writer_loses_nothing_it_was_told(catalog: Catalog, database_url: str, acknowledged: int) -> None:
    told: list[str] = []
    root = Path(__file__).parent.parent
    for turn in range(2):
        command = [sys.executable, "-c", WRITER, database_url, str(1000 * turn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as writer:
            assert writer.stdout is not None
            for _ in range(acknowledged):
                told += writer.stdout.readline().split()
            os.kill(writer.pid, signal.SIGKILL)
            told += writer.stdout.read().split()  # what it managed to say before it died
        kept = {case.case_id: case.key for case in catalog.list_cases(limit=10**6)}
        assert {name for name in told if not name.startswith("!")} <= set(kept)
        assert not {name[1:] for name in told if name.startswith("!")} & set(kept)
        whole = [int(key) for keys, _ in catalog.vectors(0) for key in keys]
        assert whole == sorted(kept.values())
        assert len(catalog.slices(catalog.select())) == len(kept)
        assert all(len(catalog.files(case_id)) == 1 for case_id in kept)
    assert len(told) >= 2 * acknowledged * 3
