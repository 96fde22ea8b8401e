"""The prose contract of ``retrieval.indexes.base``, run on every implementation."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import CorruptIndex, UsageError
from retrieval.indexes import backend_names, index_type, split_backend
from retrieval.indexes.base import VectorIndex
from retrieval.types import Keys, Similarities, UnitRows

LITE = "milvus:LITE"  # a Milvus Lite file of this process stands for LITE
MILVUS = (f"{LITE},Flat", f"{LITE},IVF8,nprobe=8") if find_spec("milvus_lite") else ()
LOCAL = ("exact", "fastscan", "faiss", "faiss:Flat", "faiss:SQ8", "faiss:IVF8,SQfp16,nprobe=8")
BACKENDS = (*LOCAL, *MILVUS)
SERVER = "milvus:SERVER,IVF8,nprobe=8"  # a real server
UNKNOWN_TARGETS = ("milvus", "milvus://host", "milvus:PATH.db,HNSW", "milvus:PATH.db,Flat,nprobe=3") if MILVUS else ()
APPROXIMATE = ("faiss:IVF16,SQfp16,nprobe=2", *((f"{LITE},IVF16,nprobe=2",) if MILVUS else ()))
DIM = 24
LITE_FOLDER = Path(tempfile.gettempdir()) / f"precedent-lite-{os.getpid()}"


def unit_rows(count: int, dim: int = DIM, seed: int = 0) -> UnitRows:
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def named(backend: str) -> tuple[str, str]:
    """Name and options, with a real file where one is wanted."""
    return split_backend(backend.replace("LITE", str(LITE_FOLDER / "lite.db")))


@pytest.fixture(scope="module", autouse=True)
def lite_folder() -> Iterator[None]:
    LITE_FOLDER.mkdir(exist_ok=True)
    yield
    shutil.rmtree(LITE_FOLDER, ignore_errors=True)


def oracle(keys: Keys, vectors: UnitRows, query: UnitRows, k: int) -> tuple[Keys, Similarities]:
    exact = np.clip((vectors.astype(np.float64) * query).sum(axis=1).astype(np.float32), -1, 1)
    best = np.lexsort((keys, -exact))[:k]
    return keys[best], exact[best]


def create(backend: str, dim: int = DIM) -> VectorIndex:
    name, options = named(backend)
    return index_type(name).create(dim, options)


def filled(backend: str, keys: Keys, vectors: UnitRows) -> VectorIndex:
    index = create(backend, vectors.shape[1])
    index.add(keys, vectors)
    return index


def check(
    index: VectorIndex, keys: Keys, vectors: UnitRows, queries: UnitRows, k: int, allowed: Keys | None = None
) -> None:
    found_keys, found_sims = index.search(queries, k, allowed)
    assert found_keys.shape == found_sims.shape == (len(queries), k)
    assert found_keys.dtype == np.int64
    assert found_sims.dtype == np.float32
    chosen = np.ones(len(keys), bool) if allowed is None else np.isin(keys, allowed)
    for row, query in enumerate(queries):
        want_keys, want_sims = oracle(keys[chosen], vectors[chosen], query, k)
        padding = k - len(want_keys)
        assert found_keys[row].tolist() == want_keys.tolist() + [-1] * padding
        assert found_sims[row].tolist() == want_sims.tolist() + [-np.inf] * padding


@pytest.fixture(params=[*BACKENDS, pytest.param(SERVER, marks=pytest.mark.slow)])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == SERVER:
        return SERVER.replace("SERVER", request.getfixturevalue("milvus_server").address)
    return str(request.param)


def test_every_registered_backend_is_under_test() -> None:
    if not MILVUS:
        pytest.skip("Milvus Lite needs the extra 'milvus-lite'")
    assert {split_backend(backend)[0] for backend in BACKENDS} == set(backend_names())


@pytest.mark.parametrize("count", [0, 1, 2, 37, 3000])
@pytest.mark.parametrize("k", [1, 10, 50])
def test_the_best_come_first(backend: str, count: int, k: int) -> None:
    keys, vectors = np.arange(1, count + 1) * 3, unit_rows(count)
    index = filled(backend, keys, vectors)
    assert len(index) == count
    assert index.dim == DIM
    assert index.keys().tolist() == keys.tolist()
    check(index, keys, vectors, unit_rows(5, seed=9), k)


def test_equal_similarities_come_by_key(backend: str) -> None:
    vectors = np.repeat(unit_rows(40), 50, axis=0)
    keys = np.random.default_rng(1).permutation(np.arange(1, len(vectors) + 1))
    index = filled(backend, keys, vectors)
    check(index, keys, vectors, unit_rows(40), 70)


def test_all_vectors_equal(backend: str) -> None:
    vectors = np.repeat(unit_rows(1), 1500, axis=0)
    keys = np.arange(1, 1501)[::-1].copy()
    check(filled(backend, keys, vectors), keys, vectors, vectors[:2], 10)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.97, 1.0])
def test_a_filter_never_costs_recall(backend: str, share: float) -> None:
    keys, vectors = np.arange(1, 6001), unit_rows(6000)
    index = filled(backend, keys, vectors)
    allowed = keys[np.random.default_rng(3).random(len(keys)) < share]
    check(index, keys, vectors, unit_rows(4, seed=9), 20, allowed)


@pytest.mark.parametrize("approximate", APPROXIMATE)
def test_a_filter_is_exact_on_an_approximate_index(approximate: str) -> None:
    keys, vectors = np.arange(1, 6001), unit_rows(6000)
    index = filled(approximate, keys, vectors)
    assert not index.exhaustive
    for share in (0.001, 0.3, 0.9):
        allowed = keys[np.random.default_rng(3).random(len(keys)) < share]
        check(index, keys, vectors, unit_rows(20, seed=9), 10, allowed)
        assert index.plan(len(allowed)).exhaustive


@pytest.mark.parametrize("approximate", APPROXIMATE)
def test_an_approximate_index_never_returns_fewer_than_there_are(approximate: str) -> None:
    keys, vectors = np.arange(1, 2001), unit_rows(2000)
    index = filled(approximate, keys, vectors)
    check(index, keys, vectors, unit_rows(3, seed=9), 2000)
    check(index, keys, vectors, unit_rows(3, seed=9), 2100)
    found, _ = index.search(unit_rows(50, seed=9), 900)
    assert (found > 0).all()


def test_unknown_and_empty_allowed_keys(backend: str) -> None:
    keys, vectors = np.arange(10, 1010), unit_rows(1000)
    index = filled(backend, keys, vectors)
    check(index, keys, vectors, unit_rows(2, seed=9), 5, np.array([], np.int64))
    check(index, keys, vectors, unit_rows(2, seed=9), 5, np.array([1, 2, 5000], np.int64))
    check(index, keys, vectors, unit_rows(2, seed=9), 5, np.array([2, 10, 12, 1009, 1010], np.int64))
    check(index, keys, vectors, unit_rows(2, seed=9), 5, np.array([12, 10, 12], np.int64))


def _spoilt(kind: str) -> UnitRows:
    rows = unit_rows(3, seed=5)
    if kind == "nan":
        rows[1, 0] = np.nan
    elif kind == "inf":
        rows[1, 0] = np.inf
    elif kind == "long":
        rows[1] *= 1.01
    elif kind == "zero":
        rows[1] = 0
    elif kind == "dim":
        rows = unit_rows(3, DIM + 1)
    elif kind == "flat":
        rows = rows[0]
    return rows


@pytest.mark.parametrize("kind", ["nan", "inf", "long", "zero", "dim", "flat"])
def test_unfit_vectors_are_refused_and_nothing_is_added(backend: str, kind: str) -> None:
    index = filled(backend, np.array([1, 2]), unit_rows(2))
    with pytest.raises(UsageError, match="Expected"):
        index.add(np.array([7, 8, 9]), _spoilt(kind))
    assert index.keys().tolist() == [1, 2]
    with pytest.raises(UsageError, match="Expected queries"):
        index.search(_spoilt(kind), 1)


@pytest.mark.parametrize("keys", [[7, 8], [7, 8, 8], [0, 7, 8], [-1, 7, 8], [2, 7, 8], [7.0, 8.0, 9.0], [[7, 8, 9]]])
def test_unfit_keys_are_refused_and_nothing_is_added(backend: str, keys: list[int]) -> None:
    index = filled(backend, np.array([1, 2]), unit_rows(2))
    with pytest.raises(UsageError):
        index.add(np.array(keys), unit_rows(3, seed=5))
    assert index.keys().tolist() == [1, 2]
    check(index, np.array([1, 2]), unit_rows(2), unit_rows(1, seed=9), 3)


def test_stored_vectors_come_back_as_they_were(backend: str) -> None:
    keys, vectors = np.arange(1, 1001) * 2, unit_rows(1000)
    index = filled(backend, keys, vectors)
    assert np.array_equal(index.vectors(np.array([2000, 2, 10])), vectors[[999, 0, 4]])
    for unknown in (1, 3, 2001):
        with pytest.raises(UsageError, match=f"Key {unknown} is not in the index"):
            index.vectors(np.array([2, unknown]))


def test_k_must_be_positive(backend: str) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        create(backend).search(unit_rows(1), 0)


def test_no_queries(backend: str) -> None:
    found, similarities = filled(backend, np.array([1]), unit_rows(1)).search(unit_rows(0), 3)
    assert found.shape == similarities.shape == (0, 3)


def test_adding_in_pieces_and_out_of_order(backend: str) -> None:
    keys, vectors = np.arange(1, 1201), unit_rows(1200)
    order = np.random.default_rng(4).permutation(1200)
    index = create(backend)
    for piece in np.array_split(order, 5):
        index.add(keys[piece], vectors[piece])
    check(index, keys, vectors, unit_rows(3, seed=9), 12)
    index.add(np.arange(5000, 5003), unit_rows(3, seed=8))
    check(
        index,
        np.concatenate([keys, np.arange(5000, 5003)]),
        np.concatenate([vectors, unit_rows(3, seed=8)]),
        unit_rows(3, seed=8),
        12,
    )


@pytest.mark.parametrize("count", [0, 1, 1000])
@pytest.mark.parametrize("built", [True, False])
def test_an_opened_index_answers_as_the_saved_one(backend: str, count: int, built: bool, tmp_path: Path) -> None:
    keys, vectors = np.arange(1, count + 1), unit_rows(count)
    name, options = named(backend)
    if built:
        batches = ((keys[start : start + 300], vectors[start : start + 300]) for start in range(0, count, 300))
        index = index_type(name).build(tmp_path, batches, DIM, options)
    else:
        index = filled(backend, keys, vectors)
        index.save(tmp_path)
    opened = index_type(name).open(tmp_path)
    assert (opened.name, opened.dim, len(opened)) == (name, DIM, count)
    assert opened.options == index.options
    assert opened.plan(None) == index.plan(None)
    queries = unit_rows(3, seed=9)
    check(opened, keys, vectors, queries, 7)
    check(opened, keys, vectors, queries, 7, keys[::3])
    opened.add(np.array([9000]), unit_rows(1, seed=7))
    assert opened.search(unit_rows(1, seed=7), 1)[0].tolist() == [[9000]]
    assert len(index_type(name).open(tmp_path)) == count  # the files stay as they were


def test_build_refuses_keys_that_do_not_ascend(backend: str, tmp_path: Path) -> None:
    name, options = named(backend)
    batches = [(np.array([3, 4]), unit_rows(2)), (np.array([4, 5]), unit_rows(2))]
    with pytest.raises(UsageError, match="ascending"):
        index_type(name).build(tmp_path, batches, DIM, options)


def test_files_that_are_not_an_index_are_refused(backend: str, tmp_path: Path) -> None:
    name, _ = split_backend(backend)
    with pytest.raises(CorruptIndex, match="rebuild"):
        index_type(name).open(tmp_path)
    filled(backend, np.arange(1, 801), unit_rows(800)).save(tmp_path)
    for file in sorted(tmp_path.iterdir()):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CorruptIndex, match="rebuild"):
            index_type(name).open(tmp_path)
        file.write_bytes(whole)
    index_type(name).open(tmp_path)


def test_searches_from_many_threads_agree(backend: str) -> None:
    keys, vectors = np.arange(1, 3001), unit_rows(3000)
    index = filled(backend, keys, vectors)
    queries = unit_rows(8, seed=9)
    wrong: list[object] = []

    def search(which: int) -> None:
        allowed = keys[:: which + 1] if which % 2 else None
        want = index.search(queries, 10, allowed)[0].tolist()
        answers = [index.search(queries, 10, allowed)[0].tolist() for _ in range(15)]
        wrong.extend(answer for answer in answers if answer != want)
        try:
            check(index, keys, vectors, queries, 10, allowed)
        except AssertionError as error:
            wrong.append(error)

    threads = [threading.Thread(target=search, args=(which,)) for which in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@settings(max_examples=40, deadline=None)
@given(
    backend=st.sampled_from(BACKENDS),
    count=st.integers(0, 600),
    distinct=st.integers(1, 600),
    k=st.integers(1, 40),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_every_backend_is_the_oracle(backend: str, count: int, distinct: int, k: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys = rng.choice(np.arange(1, 5000), count, replace=False)
    vectors = unit_rows(distinct, seed=seed)[rng.integers(0, distinct, count)]
    index = filled(backend, keys, vectors)
    queries = np.concatenate([unit_rows(2, seed=seed + 1), unit_rows(distinct, seed=seed)[:1]])
    check(index, keys, vectors, queries, k)
    check(index, keys, vectors, queries, k, np.sort(rng.choice(np.arange(1, 5000), int(share * 4999), replace=False)))


@pytest.mark.parametrize(
    "backend", ["milvsu", "faiss:HNSW32", "faiss:SQfp16,nprobe=3", "faiss:IVF0,Flat", "exact:fast", *UNKNOWN_TARGETS]
)
def test_unknown_backends_and_options_are_refused(backend: str) -> None:
    with pytest.raises(UsageError, match=r"[Ee]xpected|takes no options"):
        create(backend)
