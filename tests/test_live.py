from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from retrieval.errors import StoreError
from retrieval.generations import generations_folder, publishing, sweep, write
from retrieval.indexes import index_type, split_backend
from retrieval.live import LiveIndex
from retrieval.manifest import MANIFEST_FILE, Facts, Manifest
from retrieval.planner import OVERFETCH, OVERFETCH_SELECTED
from retrieval.types import Keys, Similarities, UnitRows
from tests.vector_source import SqliteVectors

DIM = 12
FINGERPRINT = "classical-0123"


def unit_rows(count: int, seed: int = 0, dim: int = DIM) -> UnitRows:
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def oracle(stored: dict[int, UnitRows], query: UnitRows, k: int) -> tuple[list[int], list[float]]:
    keys = np.array(sorted(stored), np.int64)
    sims = np.array([(stored[key].astype(np.float64) * query).sum() for key in keys.tolist()]).astype(np.float32)
    best = np.lexsort((keys, -np.clip(sims, -1, 1)))[:k]
    padding = k - len(best)
    return keys[best].tolist() + [-1] * padding, np.clip(sims, -1, 1)[best].tolist() + [-np.inf] * padding


def publish(source: SqliteVectors, home: Path, backend: str, fingerprint: str = FINGERPRINT) -> Manifest:
    name, options = split_backend(backend)
    root = generations_folder(home)
    heads = source.heads()

    def fill(directory: Path) -> Facts:
        index = index_type(name).build(directory, source.vectors(0, heads.last_key), DIM, options)
        return Facts(name, index.options, DIM, fingerprint, len(index), heads.last_key, heads.last_tombstone)

    with publishing(root):
        manifest = write(root, fill)
        source.publish(manifest)
    return manifest


@pytest.fixture
def source(tmp_path: Path) -> SqliteVectors:
    return SqliteVectors(tmp_path / "catalog.sqlite3")


@pytest.fixture
def live(source: SqliteVectors, tmp_path: Path) -> LiveIndex:
    return LiveIndex(source, tmp_path, DIM, FINGERPRINT)


def found(live: LiveIndex, query: UnitRows, k: int, **scope: Keys) -> list[int]:
    keys: list[int] = live.search(query[None, :], k, **scope)[0][0].tolist()
    return keys


class Model(RuleBasedStateMachine):
    """Adds, deletes, publications, flips and searches of two processes, against a dictionary."""

    home: Path

    @initialize(seed=st.integers(0, 2**16))
    def start(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        here = self.home / f"{len(list(self.home.iterdir())):06d}"
        here.mkdir()
        self.here = here
        self.source = SqliteVectors(here / "catalog.sqlite3")
        self.stored: dict[int, UnitRows] = {}
        self.pool = unit_rows(5, seed)  # few distinct vectors, so that ties are common
        self.lives = [LiveIndex(self.source, here, DIM, FINGERPRINT) for _ in range(2)]

    @rule(count=st.integers(1, 40))
    def add(self, count: int) -> None:
        vectors = np.concatenate([unit_rows(count, int(self.rng.integers(1 << 30))), self.pool])
        vectors = vectors[self.rng.choice(len(vectors), count, replace=False)]
        self.stored.update(zip(self.source.add(vectors).tolist(), vectors, strict=True))

    @rule(share=st.floats(0, 0.6))
    def delete(self, share: float) -> None:
        for key in [key for key in sorted(self.stored) if self.rng.random() < share]:
            self.source.delete(key)
            del self.stored[key]

    @rule(backend=st.sampled_from(["exact", "faiss:SQfp16", "faiss:SQ8"]))
    def publish(self, backend: str) -> None:
        publish(self.source, self.here, backend)

    @rule()
    def withdraw(self) -> None:
        self.source.publish(None)

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.lives[which] = LiveIndex(self.source, self.here, DIM, FINGERPRINT)

    @rule(which=st.integers(0, 1), k=st.integers(1, 30), filtered=st.booleans(), excluding=st.booleans())
    def search(self, which: int, k: int, filtered: bool, excluding: bool) -> None:
        live = self.lives[which]
        live.refresh()
        last = self.source.heads().last_key
        allowed = np.flatnonzero(self.rng.random(last + 3) < self.rng.random()) + 1 if filtered else None
        excluded = self.rng.integers(1, last + 3, 4) if excluding else np.empty(0, np.int64)
        stored = {
            key: vector
            for key, vector in self.stored.items()
            if (allowed is None or key in allowed) and key not in excluded
        }
        queries = np.concatenate([unit_rows(2, 7), self.pool[:1]])
        keys, sims, plan = live.search(queries, k, allowed, excluded)
        assert plan.exhaustive
        for query, row, scores in zip(queries, keys, sims, strict=True):
            assert (row.tolist(), scores.tolist()) == oracle(stored, query, k)

    @invariant()
    def sizes_agree(self) -> None:
        live = self.lives[0]
        live.refresh()
        assert len(live) == len(self.stored)
        assert live.damaged == ""


def test_behaves_like_a_dictionary(tmp_path: Path) -> None:
    class Here(Model):
        home = tmp_path

    run_state_machine_as_test(Here, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))


def test_refresh_reads_nothing_but_heads_when_nothing_changed(source: SqliteVectors, live: LiveIndex) -> None:
    source.add(unit_rows(3))
    live.refresh()
    reads, snapshot = source.reads, live.snapshot
    for _ in range(5):
        assert live.refresh() is snapshot
    assert source.reads == reads


def test_small_adds_do_not_copy_what_is_there(source: SqliteVectors, live: LiveIndex) -> None:
    source.add(unit_rows(50))
    live.refresh()
    moved = 0
    for seed in range(200):
        before = live.snapshot.delta.keys()
        source.add(unit_rows(1, seed))
        live.refresh()
        moved += not np.shares_memory(before, live.snapshot.delta.keys())
    assert moved == 0  # 250 rows fit in the first buffer
    assert len(live) == live.delta == 250


def test_an_old_snapshot_answers_as_it_did(source: SqliteVectors, live: LiveIndex) -> None:
    source.add(unit_rows(20))
    old = live.refresh()
    want = old.search(unit_rows(4, 9), 30)
    source.add(unit_rows(20, 1))
    source.delete(3)
    live.refresh()
    again = old.search(unit_rows(4, 9), 30)
    assert again[0].tolist() == want[0].tolist()
    assert (len(old), len(live)) == (20, 39)


@pytest.mark.parametrize("backend", ["exact", "faiss:SQfp16"])
def test_many_deletes_and_many_exclusions(source: SqliteVectors, live: LiveIndex, tmp_path: Path, backend: str) -> None:
    vectors = unit_rows(OVERFETCH * 3)
    stored = dict(zip(source.add(vectors).tolist(), vectors, strict=True))
    publish(source, tmp_path, backend)
    gone = list(stored)[: OVERFETCH + 5]
    live.refresh()
    query = unit_rows(1, 9)[0]
    assert (
        found(live, query, 20, excluded=np.array(gone))
        == oracle({key: row for key, row in stored.items() if key not in gone}, query, 20)[0]
    )
    for key in gone[:300]:
        source.delete(key)
        del stored[key]
    live.refresh()
    assert found(live, query, 20) == oracle(stored, query, 20)[0]
    assert len(live) == len(stored)


@pytest.mark.parametrize("backend", ["exact", "faiss:SQfp16"])
@pytest.mark.parametrize("count", [1, OVERFETCH_SELECTED, OVERFETCH_SELECTED + 1])
def test_exclusions_among_those_selected(
    source: SqliteVectors, live: LiveIndex, tmp_path: Path, backend: str, count: int
) -> None:
    """Also where fewer than k are left, some of them were deleted, and some excluded ones are not selected anyway."""
    vectors = unit_rows(400)
    stored = dict(zip(source.add(vectors).tolist(), vectors, strict=True))
    publish(source, tmp_path, backend)
    source.delete(2)
    del stored[2]
    live.refresh()
    query, allowed = unit_rows(1, 9)[0], np.arange(2, 202, 2)
    excluded = np.array([5, 7, *np.arange(10, 10 + 2 * count, 2)])
    left = {key: row for key, row in stored.items() if key in allowed and key not in excluded}
    for k in (10, 150):
        assert found(live, query, k, allowed=allowed, excluded=excluded) == oracle(left, query, k)[0]
    assert live.search(query[None, :], 5, allowed, excluded)[2].candidates == len(left)


def test_the_plan_says_what_was_done(source: SqliteVectors, live: LiveIndex, tmp_path: Path) -> None:
    source.add(unit_rows(3000))
    publish(source, tmp_path, "faiss:IVF8,SQfp16,nprobe=2")
    live.refresh()
    query = unit_rows(1, 9)
    _, _, plan = live.search(query, 5)
    assert (plan.name, plan.candidates, plan.exhaustive) == ("faiss:IVF8,SQfp16,nprobe=2", 750, False)
    source.add(unit_rows(4, 1))
    live.refresh()
    _, _, plan = live.search(query, 5)
    assert (plan.name, plan.candidates, plan.exhaustive) == ("faiss:IVF8,SQfp16,nprobe=2+exact", 754, False)
    _, _, plan = live.search(query, 5, np.arange(2990, 3010))
    assert (plan.name, plan.candidates, plan.exhaustive) == ("selected-exact", 15, True)


def test_an_empty_gallery_answers(live: LiveIndex) -> None:
    live.refresh()
    keys, sims, plan = live.search(unit_rows(2), 3)
    assert (keys == -1).all()
    assert np.isneginf(sims).all()
    assert plan.exhaustive
    assert len(live) == 0


def _flip(directory: Path) -> None:
    path = directory / "vectors.npy"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def _edit(directory: Path) -> None:
    path = directory / MANIFEST_FILE
    path.write_bytes(path.read_bytes().replace(b'"count": 40', b'"count": 39'))


def _remove(directory: Path) -> None:
    with publishing(directory.parent):
        sweep(directory.parent, set())


@pytest.mark.parametrize("damage", [_flip, _edit, _remove])
def test_a_damaged_generation_is_rebuilt_from_sql_and_never_served(
    source: SqliteVectors, live: LiveIndex, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    vectors = unit_rows(40)
    stored = dict(zip(source.add(vectors).tolist(), vectors, strict=True))
    manifest = publish(source, tmp_path, "exact")
    damage(generations_folder(tmp_path) / manifest.name)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        live.refresh()
    assert "rebuild the index" in live.damaged
    assert "read from the database instead" in caplog.text
    assert live.generation == ""
    for query in unit_rows(5, 9):
        assert found(live, query, 10) == oracle(stored, query, 10)[0]
    publish(source, tmp_path, "exact")
    live.refresh()
    assert (live.damaged, live.delta, len(live)) == ("", 0, 40)


def test_a_generation_of_another_encoder_is_not_served(source: SqliteVectors, live: LiveIndex, tmp_path: Path) -> None:
    source.add(unit_rows(10))
    publish(source, tmp_path, "exact", fingerprint="other-4567")
    live.refresh()
    assert "other-4567" in live.damaged
    assert FINGERPRINT in live.damaged
    assert live.delta == len(live) == 10


@pytest.mark.parametrize("spoil", [np.nan, 2.0])
def test_a_damaged_vector_in_sql_is_told(source: SqliteVectors, live: LiveIndex, spoil: float) -> None:
    vectors = unit_rows(10)
    vectors[4, 0] = spoil
    source.add(vectors)
    with pytest.raises(StoreError, match="verify --repair"):
        live.refresh()


def test_searches_and_refreshes_from_many_threads(source: SqliteVectors, live: LiveIndex, tmp_path: Path) -> None:
    """Readers never see a mixture: any key of a snapshot is found by its own vector, the deleted ones never."""
    vectors = unit_rows(300)
    source.add(vectors[:100])
    source.delete(50)
    live.refresh()
    wrong: list[str] = []
    done = threading.Event()

    def check(keys: Keys, sims: Similarities) -> None:
        if 50 in keys[0] or sims[0, 0] < 0.999 or len(set(keys[0].tolist())) != keys.shape[1]:
            wrong.append(f"{keys} {sims}")

    def read() -> None:
        while not done.is_set():
            snapshot = live.refresh()
            keys, sims, _ = snapshot.search(vectors[:1], 20)
            check(keys, sims)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for start in range(100, 300, 20):
        last = source.add(vectors[start : start + 20])[-1]
        live.refresh()
        if found(live, vectors[start + 19], 1) != [last]:
            wrong.append(f"own write {last} not read")
        if start % 60 == 40:
            publish(source, tmp_path, "faiss" if start % 120 == 40 else "exact")
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert len(live.refresh()) == 299
