"""FAISS indexes with a copy on a GPU: on a real one where there is one, else with a stand-in as strict and as coarse.

The stand-in takes FAISS's place at the border to the hardware alone: it is a copy on the CPU that sees queries in
float16, selects no more than a GPU does, knows no filters, and complains of two threads at once. What a real GPU needs
beyond that (drivers, memory, its kernels) is not tested without one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from retrieval.indexes import gpu, index_type
from retrieval.indexes.base import VectorIndex
from retrieval.types import Keys, UnitRows

faiss = pytest.importorskip("faiss")

DIM = 32
KINDS = ("Flat", "SQfp16", "IVF16,Flat,nprobe=16", "IVF16,SQfp16,nprobe=16", "IVF16,SQ8,nprobe=16")
PROBING = "IVF16,SQ8,nprobe=4"


class Card:
    """An index as a GPU would have it."""

    def __init__(self, index: Any, used: list[str]) -> None:
        self.index, self.used, self._busy = faiss.clone_index(index), used, threading.Lock()

    def search(self, queries: UnitRows, wanted: int, params: Any = None) -> Any:
        assert wanted <= gpu.MOST
        assert params is None or (params.sel is None and params.nprobe <= gpu.MOST)
        assert self._busy.acquire(blocking=False), "two threads at once"
        try:
            self.used.append(f"search {len(queries)}")
            coarse = queries.astype(np.float16).astype(np.float32)
            return self.index.search(coarse, wanted, params=params)
        finally:
            self._busy.release()


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Stands in for a GPU; what it was used for."""
    used: list[str] = []

    class Resources:
        def setTempMemory(self, size: int) -> None:  # noqa: N802, FAISS's name
            assert size < 2**30

    def index_cpu_to_gpu(resources: Resources, device: int, index: Any) -> Any:
        assert isinstance(resources, Resources)
        assert device == 0
        used.append(f"copy {type(index).__name__}")
        # FAISS itself clusters with it, so that must be one of its own
        return faiss.clone_index(index) if index.ntotal == 0 else Card(index, used)

    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", index_cpu_to_gpu, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    forget()
    yield used
    forget()


def forget() -> None:
    gpu.count.cache_clear()
    gpu._resources.cache_clear()


def rows(count: int, seed: int = 0) -> UnitRows:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def keys(count: int) -> Keys:
    return np.arange(count, dtype=np.int64) * 3 + 1


def built(directory: Path, backend: str, options: str, vectors: UnitRows) -> VectorIndex:
    directory.mkdir(parents=True, exist_ok=True)
    return index_type(backend).build(directory, [(keys(len(vectors)), vectors)], DIM, options)


def same(one: tuple[Keys, npt.NDArray[np.float32]], other: tuple[Keys, npt.NDArray[np.float32]]) -> bool:
    return bool((one[0] == other[0]).all() and (one[1] == other[1]).all())


@pytest.mark.parametrize("options", KINDS)
def test_answers_are_those_of_every_row(tmp_path: Path, card: list[str], options: str) -> None:
    vectors, queries = rows(3000), rows(40, seed=1)
    exact = built(tmp_path / "exact", "exact", "", vectors)
    index = built(tmp_path / "faiss", "faiss", options, vectors)
    opened = index_type("faiss").open(tmp_path / "faiss")
    for each in (index, opened):
        del card[:]
        assert same(each.search(queries, 10), exact.search(queries, 10))
        assert card[0] == "search 40"  # the whole batch at once
        assert each.plan().name == f"faiss:{options.removesuffix(',nprobe=16')}" + (
            ",nprobe=16@gpu" if "IVF" in options else "@gpu"
        )


def test_near_copies_are_told_apart_by_the_rows_where_the_card_can_not(tmp_path: Path, card: list[str]) -> None:
    middle = rows(1)
    vectors = middle + 1e-4 * rows(2000, seed=2)  # closer than float16 can tell
    vectors = np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
    exact = built(tmp_path / "exact", "exact", "", vectors)
    index = built(tmp_path / "faiss", "faiss", "Flat", vectors)
    assert same(index.search(vectors[:5], 10), exact.search(vectors[:5], 10))


def test_filters_and_what_a_card_has_no_copy_of_stay_on_the_cpu(tmp_path: Path, card: list[str]) -> None:
    vectors, queries = rows(3000), rows(4, seed=1)
    exact = built(tmp_path / "exact", "exact", "", vectors)
    flat = built(tmp_path / "flat", "faiss", "Flat", vectors)
    eight = built(tmp_path / "eight", "faiss", "SQ8", vectors)
    allowed = keys(3000)[::2]
    del card[:]
    assert same(flat.search(queries, 10, allowed), exact.search(queries, 10, allowed))
    assert flat.plan(1500).name == "faiss:Flat"
    assert same(eight.search(queries, 10), exact.search(queries, 10))
    assert eight.plan().name == "faiss:SQ8"
    assert card == []


def test_more_hits_than_a_card_selects(tmp_path: Path, card: list[str]) -> None:
    vectors, queries = rows(20000), rows(2, seed=1)
    exact = built(tmp_path / "exact", "exact", "", vectors)
    index = built(tmp_path / "faiss", "faiss", "Flat", vectors)
    del card[:]
    assert same(index.search(queries, gpu.MOST), exact.search(queries, gpu.MOST))
    assert card == []


def test_lists_are_found_and_filled_with_the_card(tmp_path: Path, card: list[str]) -> None:
    vectors, queries = rows(6000), rows(50, seed=1)
    exact = built(tmp_path / "exact", "exact", "", vectors)
    index = built(tmp_path / "faiss", "faiss", PROBING, vectors)
    assert card[:3] == ["copy IndexFlatIP", "copy IndexFlat", "search 6000"]  # to cluster by, to assign by, assigned
    assert card[3:] == ["copy IndexIVFScalarQuantizer"]
    plan = index.plan()
    assert (plan.name, plan.candidates, plan.exhaustive) == (f"faiss:{PROBING}@gpu", 1500, False)
    by_card = index.search(queries, 10)
    forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss, "get_num_gpus", lambda: 0, raising=False)
        without = built(tmp_path / "without", "faiss", PROBING, vectors)
    true = exact.search(queries, 10)
    assert abs(recall(by_card, true) - recall(without.search(queries, 10), true)) < 0.1


def recall(found: tuple[Keys, Any], true: tuple[Keys, Any]) -> float:
    return float(np.mean([len(np.intersect1d(one, other)) for one, other in zip(found[0], true[0], strict=True)]) / 10)


def test_threads_take_turns(tmp_path: Path, card: list[str]) -> None:
    vectors, queries = rows(3000), rows(64, seed=1)
    index = built(tmp_path, "faiss", "Flat", vectors)
    alone = [index.search(query[None, :], 5) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda query: index.search(query[None, :], 5), queries))
    assert all(same(one, other) for one, other in zip(alone, together, strict=True))


def test_a_card_that_is_full_is_done_without(
    tmp_path: Path, card: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> Any:
        raise RuntimeError("Error: 'err == cudaSuccess' failed:\n out of memory")

    monkeypatch.setattr(faiss, "index_cpu_to_gpu", full)
    vectors, queries = rows(3000), rows(4, seed=1)
    exact = built(tmp_path / "exact", "exact", "", vectors)
    index = built(tmp_path / "faiss", "faiss", "IVF16,SQ8,nprobe=16", vectors)
    assert same(index.search(queries, 10), exact.search(queries, 10))
    assert index.plan().name == "faiss:IVF16,SQ8,nprobe=16"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3  # to cluster by, to assign by, to search
    assert all("out of memory" in line and "\n" not in line for line in said)


def test_a_card_that_fails_at_a_search_is_let_go(
    tmp_path: Path, card: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    vectors, queries = rows(3000), rows(4, seed=1)
    exact = built(tmp_path / "exact", "exact", "", vectors)
    index = built(tmp_path / "faiss", "faiss", "Flat", vectors)

    def gone(*_: Any, **__: Any) -> Any:
        raise RuntimeError("device lost")

    monkeypatch.setattr(Card, "search", gone)
    for _ in range(2):
        assert same(index.search(queries, 10), exact.search(queries, 10))
        assert index.plan().name == "faiss:Flat"
    assert [record.getMessage() for record in caplog.records] == [
        "The GPU failed at a search, the CPU goes on without it: device lost"
    ]


def test_a_card_that_fails_at_clustering_is_let_go(
    tmp_path: Path, card: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train, tried = faiss.IndexIVFScalarQuantizer.train, []

    def once(index: Any, sample: UnitRows) -> None:
        tried.append(index.clustering_index is not None)
        if tried == [True]:
            raise RuntimeError("device lost")
        train(index, sample)

    monkeypatch.setattr(faiss.IndexIVFScalarQuantizer, "train", once)
    index = built(tmp_path / "faiss", "faiss", "IVF16,SQ8,nprobe=16", rows(3000))
    assert tried == [True, False]
    assert len(index) == 3000
    assert "The GPU failed at finding lists, the CPU begins anew: device lost" in caplog.text


@pytest.mark.skipif(not gpu.count(), reason="no GPU that FAISS sees (extra faiss-gpu)")
@pytest.mark.parametrize("options", KINDS)
def test_on_a_real_gpu(tmp_path: Path, options: str) -> None:
    vectors, queries = rows(50_000), rows(200, seed=1)
    exact = built(tmp_path / "exact", "exact", "", vectors)
    index = built(tmp_path / "faiss", "faiss", options, vectors)
    assert index.plan().name.endswith("@gpu")
    assert same(index.search(queries, 10), exact.search(queries, 10))
    assert index.plan().name.endswith("@gpu")  # it has not failed meanwhile
