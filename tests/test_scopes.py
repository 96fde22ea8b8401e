"""The codes of those whom a filter lets through are taken together once it is asked again, and tell the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.indexes.choice import SCOPED
from retrieval.indexes.codes import Codes
from retrieval.indexes.fastscan import FastScanIndex
from retrieval.indexes.library import load_faiss
from retrieval.indexes.noise import Noise
from retrieval.indexes.packed import BLOCK, taken
from retrieval.indexes.projection import Placed
from retrieval.indexes.scopes import Scopes
from retrieval.planner import CODED
from retrieval.types import Keys, UnitRows
from tests.test_fastscan import COUNT, embeddings, recall_of

pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def rows() -> UnitRows:
    return embeddings(COUNT)


@pytest.fixture(scope="module")
def keys() -> Keys:
    return np.arange(1, COUNT + 1) * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, rows: UnitRows, keys: Keys) -> Path:
    folder = tmp_path_factory.mktemp("scopes")
    FastScanIndex.build(folder, [(keys, rows)], rows.shape[1], "lists=32")
    return folder


@pytest.fixture
def index(folder: Path) -> FastScanIndex:
    return FastScanIndex.open(folder)


def scopes_of(index: FastScanIndex) -> Scopes:
    scopes = index._state.scopes
    assert scopes is not None
    return scopes


def some(keys: Keys, count: int, seed: int = 0) -> Keys:
    return np.sort(np.random.default_rng(seed).permutation(keys)[:count])


def coded(dims: int, count: int, seed: int) -> tuple[Codes, npt.NDArray[np.float32]]:
    places = np.random.default_rng(seed).standard_normal((count, dims)).astype(np.float32)
    codes = Codes.empty(np.random.default_rng(9).standard_normal((1000, dims)).astype(np.float32), 1)
    codes.index.add(places)
    return Codes(codes.index, Noise(1.0, 0.1)), places


@settings(max_examples=40)
@given(
    dims=st.sampled_from([2, 4, 6, 10, 32]),
    count=st.integers(1, 200),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 999),
)
def test_codes_taken_together_are_as_the_library_would_lay_them(dims: int, count: int, share: float, seed: int) -> None:
    """Byte by byte beside FAISS's own coding of these rows alone."""
    codes, places = coded(dims, count, seed)
    chosen = np.flatnonzero(np.random.default_rng(seed + 1).random(count) < share)
    alone = load_faiss().clone_index(codes.index)
    alone.reset()
    alone.add_with_ids(places[chosen], chosen)
    together = codes.of(chosen)
    assert together.index.ntotal == len(chosen)
    if len(chosen):
        assert np.array_equal(together._blocks(), Codes(alone, codes.noise)._blocks())
    placed = Placed(places[:3], np.zeros(min(3, count), np.float32))
    one, other = together.near(placed, 20), Codes(alone, codes.noise).near(placed, 20)
    assert np.array_equal(one.nominees, other.nominees) and np.array_equal(one.likely, other.likely)


def test_everyone_taken_together_is_as_before() -> None:
    codes, _ = coded(16, 3 * BLOCK + 5, 0)
    assert np.array_equal(taken(codes._blocks(), np.arange(3 * BLOCK + 5)), codes._blocks())


def test_a_filter_that_is_asked_again_is_kept(index: FastScanIndex, rows: UnitRows, keys: Keys) -> None:
    scopes, allowed, queries = scopes_of(index), some(keys, 4000), embeddings(20, seed=3)
    first = [index.search(query[None, :], 10, allowed) for query in queries[:1]]
    assert scopes.of(allowed, 0).codes is None
    again = [index.search(query[None, :], 10, allowed.copy()) for query in queries]
    scope = scopes.of(allowed, 0)
    assert scope.codes is not None and scope.codes.index.ntotal == len(scope.passing) == 4000
    assert all(np.array_equal(one, other) for one, other in zip(first[0], again[0], strict=True))
    assert scopes.of(some(keys, 4000, seed=1), 0).codes is None  # as many, but others


@pytest.mark.parametrize("share", [0.1, 0.2, 0.38, 0.5])
@pytest.mark.parametrize("together", [False, True])
def test_recall_is_kept(index: FastScanIndex, rows: UnitRows, keys: Keys, share: float, together: bool) -> None:
    order = np.argsort(rows[:, 0]) if together else np.random.default_rng(1).permutation(COUNT)
    allowed = np.sort(keys[order[: int(share * COUNT)]])
    assert recall_of(index, rows, keys, allowed) >= 0.99
    assert scopes_of(index).of(allowed, 0).codes is not None
    assert recall_of(index, rows, keys, allowed, k=50) >= 0.99


def test_a_caller_may_write_to_what_it_asked_with(index: FastScanIndex, rows: UnitRows, keys: Keys) -> None:
    allowed = some(keys, 3000)
    for _ in range(3):
        index.search(rows[:1], 10, allowed)
    allowed[:] = some(keys, 3000, seed=2)
    found, _ = index.search(rows[:5], 10, allowed)
    assert np.isin(found, allowed).all()


def test_no_more_is_kept_than_is_stated(index: FastScanIndex, keys: Keys) -> None:
    scopes, size = scopes_of(index), int(SCOPED * COUNT * 0.4)
    for seed in range(6):
        scopes.of(some(keys, size, seed), 2)
        assert sum(len(each.keys) for each in scopes._kept) <= SCOPED * COUNT
    assert len(scopes._kept) == 2
    scopes.of(some(keys, size, 4), 0)  # asked for again, so the other one is the oldest
    scopes.of(some(keys, size, 9), 2)
    assert scopes._found(some(keys, size, 4)) and not scopes._found(some(keys, size, 5))
    scopes.of(keys, 100)
    assert not scopes._found(keys), "more than half of all"


def test_a_few_are_read_as_they_are(index: FastScanIndex, keys: Keys) -> None:
    allowed = some(keys, CODED.few)
    for _ in range(3):
        index.search(embeddings(1, seed=4), 10, allowed)
    assert index.plan(CODED.few).exhaustive and not index.plan(CODED.few + 1).exhaustive
    assert scopes_of(index)._found(allowed) is None


def test_none_of_those_asked_for_may_be_there(index: FastScanIndex, keys: Keys) -> None:
    for _ in range(3):
        found, _ = index.search(embeddings(2), 10, np.arange(1, 2 * COUNT, 2)[:3000])
        assert (found == -1).all()


def test_many_threads_ask_under_many_filters(index: FastScanIndex, rows: UnitRows, keys: Keys) -> None:
    filters = [some(keys, 1100 + 200 * seed, seed) for seed in range(6)]
    queries = embeddings(24, seed=6)
    fresh = [
        [
            np.sort(query.astype(np.float64) @ rows[np.isin(keys, allowed)].T.astype(np.float64))[-10]
            for query in queries
        ]
        for allowed in filters
    ]

    def ask(n: int) -> tuple[int, int]:
        allowed, query = filters[n % 6], n // 6 % 24
        found, sims = index.search(queries[query : query + 1], 10, allowed)
        assert np.isin(found, allowed).all()
        return int((sims[0] >= fresh[n % 6][query] - 1e-6).sum()), 10

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(ask, range(288)))
    assert sum(hit for hit, _ in told) >= 0.99 * sum(wanted for _, wanted in told)
