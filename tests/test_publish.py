from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.catalog import Catalog
from retrieval.catalog.types import Binding
from retrieval.errors import CorruptIndex, NotFoundError, StoreError, UsageError
from retrieval.generations import check_generation, generations_folder
from retrieval.indexes import index_type
from retrieval.indexes.choice import CODED_FROM
from retrieval.manifest import MANIFEST_FILE
from retrieval.publish import publish, publish_compared, rollback
from retrieval.recall import measure_recall
from tests.vector_cases import DIM, FINGERPRINT, commit_vectors, live_index, open_catalog, unit_rows


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(tmp_path) as catalog:
        yield catalog


def directories(home: Path) -> list[str]:
    return sorted(path.name for path in generations_folder(home).iterdir() if path.name != ".lock")


@pytest.mark.parametrize("backend", ["exact", "faiss", "faiss:IVF4,SQ8,nprobe=4"])
def test_a_published_generation_is_live(catalog: Catalog, tmp_path: Path, backend: str) -> None:
    vectors = unit_rows(5000)
    keys = commit_vectors(catalog, vectors)
    catalog.delete([f"{7:016d}"])
    seen: list[int] = []
    manifest = publish(catalog, tmp_path, backend, progress=seen.append)
    assert seen == [4096, 4999]
    assert (manifest.facts.count, manifest.facts.last_key, manifest.facts.fingerprint) == (4999, keys[-1], FINGERPRINT)
    live = live_index(catalog, tmp_path)
    assert (live.generation, live.delta, len(live), live.damaged) == (manifest.name, 0, 4999, "")
    assert live.search(vectors[10:14], 1)[0].ravel().tolist() == keys[10:14]
    assert live.search(vectors[6:7], 1)[0].ravel().tolist() != keys[6:7]


def test_an_open_process_follows_the_flip_and_the_rollback(catalog: Catalog, tmp_path: Path) -> None:
    commit_vectors(catalog, unit_rows(50))
    first = publish(catalog, tmp_path, "exact")
    live = live_index(catalog, tmp_path)
    commit_vectors(catalog, unit_rows(30, 1), first=51)
    catalog.delete([f"{3:016d}"])
    live.refresh()
    assert (live.generation, live.delta, len(live)) == (first.name, 30, 79)
    second = publish(catalog, tmp_path, "faiss")
    live.refresh()
    assert (live.generation, live.delta, len(live)) == (second.name, 0, 79)
    assert rollback(catalog, tmp_path).name == first.name
    live.refresh()
    assert (live.generation, live.delta, len(live)) == (first.name, 30, 79)
    assert 3 not in live.search(unit_rows(50)[2:3], 79)[0]
    with pytest.raises(NotFoundError, match="no earlier generation"):
        rollback(catalog, tmp_path)


def test_one_generation_is_kept_to_go_back_to(catalog: Catalog, tmp_path: Path) -> None:
    commit_vectors(catalog, unit_rows(5))
    names = [publish(catalog, tmp_path, "exact").name for _ in range(4)]
    assert directories(tmp_path) == names[2:]
    assert [row.name for row in catalog.generations()] == names[2:]
    last = publish(catalog, tmp_path, "exact", keep_previous=False)
    assert directories(tmp_path) == [last.name]


def test_a_damaged_generation_is_not_rolled_back_to(catalog: Catalog, tmp_path: Path) -> None:
    commit_vectors(catalog, unit_rows(5))
    first, second = (publish(catalog, tmp_path, "exact") for _ in range(2))
    (generations_folder(tmp_path) / first.name / MANIFEST_FILE).write_text("{}")
    with pytest.raises(CorruptIndex, match="rebuild"):
        rollback(catalog, tmp_path)
    assert catalog.heads().generation == second.name


def test_a_damaged_generation_is_not_kept_to_go_back_to(catalog: Catalog, tmp_path: Path) -> None:
    """The one before it is."""
    commit_vectors(catalog, unit_rows(5))
    first, second = (publish(catalog, tmp_path, "exact") for _ in range(2))
    (generations_folder(tmp_path) / second.name / MANIFEST_FILE).write_text("{}")
    third = publish(catalog, tmp_path, "exact")
    assert directories(tmp_path) == [first.name, third.name]
    assert rollback(catalog, tmp_path).name == first.name


def test_an_index_that_misses_neighbours_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    commit_vectors(catalog, unit_rows(4000))
    before = publish(catalog, tmp_path, "exact")
    with pytest.raises(UsageError, match=r"finds 0\.\d+ of the true 10 nearest neighbours"):
        publish(catalog, tmp_path, "faiss:IVF64,SQfp16,nprobe=1")
    assert catalog.heads().generation == before.name
    assert directories(tmp_path) == [before.name]


def test_what_auto_takes_gives_way_to_exact_where_it_finds_too_little(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Vectors of as many directions as numbers, in memory that has room for a quarter of them."""
    pytest.importorskip("faiss")
    rows = np.random.default_rng(0).standard_normal((CODED_FROM, 256)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    with Catalog.open(f"sqlite:///{tmp_path / 'catalog.sqlite3'}", create=True) as catalog:
        catalog.bind(Binding(FINGERPRINT, "test", 256, "mean", "{}"))
        commit_vectors(catalog, rows)
        with pytest.raises(UsageError, match=r"fastscan:dims=64\S* finds 0\.\d+ of the true 10 nearest neighbours"):
            publish(catalog, tmp_path, "fastscan:dims=64")
        manifest = publish(catalog, tmp_path, "auto:800K")
    assert manifest.facts.backend == "exact" and "Every vector will be scored instead" in caplog.text


def test_recall_is_the_share_of_true_neighbours_found() -> None:
    vectors = unit_rows(2000)
    index = index_type("faiss").create(DIM, "IVF16,Flat,nprobe=3")
    index.add(np.arange(1, 2001), vectors)
    products = vectors[:50] @ vectors.T
    want = []
    for row, query in zip(np.argsort(-products, axis=1)[:, :10] + 1, vectors[:50], strict=True):
        found = index.search(query[None, :], 10)[0][0]
        want.append(len(set(found.tolist()) & set(row.tolist())) / 10)
    assert 0.3 < np.mean(want) < 0.99
    assert measure_recall(index, vectors[:50]) == pytest.approx(np.mean(want))


def test_nothing_to_publish_is_a_sentence(tmp_path: Path) -> None:
    with (
        Catalog.open(f"sqlite:///{tmp_path / 'catalog.sqlite3'}", create=True) as catalog,
        pytest.raises(UsageError, match="no cases yet"),
    ):
        publish(catalog, tmp_path, "exact")


def test_a_damaged_vector_in_sql_is_not_published(catalog: Catalog, tmp_path: Path) -> None:
    keys = commit_vectors(catalog, unit_rows(5))
    with catalog.database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE embeddings SET vector = ? WHERE key = ?", (np.full(DIM, np.nan, np.float32).tobytes(), keys[2])
        )
    with pytest.raises(StoreError, match="verify --repair"):
        publish(catalog, tmp_path, "exact")
    assert directories(tmp_path) == []


@pytest.mark.parametrize("rebuild", [publish, publish_compared])
def test_what_a_killed_rebuild_left_is_gone_before_the_next_one_takes_room(
    catalog: Catalog, tmp_path: Path, rebuild: Callable[..., object]
) -> None:
    commit_vectors(catalog, unit_rows(5))
    first = publish(catalog, tmp_path, "exact")
    dead = generations_folder(tmp_path) / ".building-0123456789ab"
    unnamed = generations_folder(tmp_path) / "g000007-0123ab"
    for left in (dead, unnamed):
        left.mkdir()
        (left / "rows.npy").write_bytes(bytes(1000))
    seen: list[list[str]] = []
    rebuild(catalog, tmp_path, "exact", progress=lambda _: seen.append(directories(tmp_path)))
    assert not {dead.name, unnamed.name} & set(seen[0])
    assert first.name in seen[0]


def _publish_for_ever(home: Path, seed: int, started: Any) -> None:
    rng = np.random.default_rng(seed)
    with open_catalog(home) as catalog:
        while True:
            rows = unit_rows(20, int(rng.integers(1 << 30)))
            commit_vectors(catalog, rows, first=catalog.heads().last_key + 1)
            publish(catalog, home, "faiss" if rng.random() < 0.5 else "exact")
            started.set()


def test_a_publisher_killed_at_any_moment_leaves_a_sound_index(tmp_path: Path) -> None:
    open_catalog(tmp_path).close()
    context, rng = multiprocessing.get_context("forkserver"), random.Random(0)
    for round_ in range(12):
        started = context.Event()
        publisher = context.Process(target=_publish_for_ever, args=(tmp_path, round_, started))
        publisher.start()
        assert started.wait(60)
        time.sleep(rng.uniform(0.0, 0.25))
        publisher.kill()
        publisher.join()
        with open_catalog(tmp_path) as catalog:
            live = live_index(catalog, tmp_path)
            assert live.damaged == ""
            assert len(live) == catalog.count()
            assert live.snapshot.heads.last_key == sum(len(keys) for keys, _ in catalog.vectors(0))
            rows = catalog.generations()
            for row in rows:  # all that can be rolled back to, too
                check_generation(generations_folder(tmp_path), row.name, row.manifest_sha256)
    with open_catalog(tmp_path) as catalog:
        assert catalog.generations()
        last = publish(catalog, tmp_path, "exact", keep_previous=False)
    assert directories(tmp_path) == [last.name]
