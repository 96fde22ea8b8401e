"""Short codes on vectors that, as embeddings do, have fewer directions than numbers; and what becomes of filters."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import CorruptIndex, UsageError
from retrieval.indexes.choice import CODED_FROM
from retrieval.indexes.codes import LISTS_FROM, lists_for
from retrieval.indexes.fastscan import FACTS_FILE, FastScanIndex
from retrieval.indexes.nomination import CODES_FILES, DIRECTIONS_FILE, MEAN_FILE, NOISE_FILE
from retrieval.indexes.projection import Projection
from retrieval.indexes.questions import displaced
from retrieval.recall import exact_similarities, measure_recall
from retrieval.types import Keys, UnitRows

DIM, COUNT = 96, CODED_FROM + 2000


def embeddings(count: int, seed: int = 0) -> UnitRows:
    """Clusters in a space of 24 directions, seen through 96 numbers with a little noise."""
    shared, rng = np.random.default_rng(99), np.random.default_rng(seed)
    centres, turn = shared.standard_normal((60, 24)), shared.standard_normal((24, DIM))
    inner = centres[rng.integers(0, len(centres), count)] + 0.7 * rng.standard_normal((count, 24))
    rows = (inner @ turn + 0.3 * rng.standard_normal((count, DIM))).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fastscan")


@pytest.fixture(scope="module")
def rows() -> UnitRows:
    return embeddings(COUNT)


@pytest.fixture(scope="module")
def keys() -> Keys:
    return np.arange(1, COUNT + 1) * 2


@pytest.fixture(scope="module")
def index(folder: Path, rows: UnitRows, keys: Keys) -> FastScanIndex:
    """With lists, which so few rows would not have by themselves."""
    pieces = ((keys[n : n + 1000], rows[n : n + 1000]) for n in range(0, COUNT, 1000))
    return FastScanIndex.build(folder, pieces, DIM, "lists=32")


def recall_of(index: FastScanIndex, rows: UnitRows, keys: Keys, allowed: Keys | None, k: int = 10) -> float:
    """Of new queries, against every similarity in float64."""
    queries = embeddings(200, seed=5)
    chosen = rows if allowed is None else rows[np.isin(keys, allowed)]
    exact = np.sort((queries.astype(np.float64) @ chosen.T.astype(np.float64)), axis=1)[:, -k]
    found, sims = index.search(queries, k, allowed)
    assert (found > 0).all() and (allowed is None or np.isin(found, allowed).all())
    assert (np.diff(sims, axis=1) <= 0).all() and all(len(set(row)) == k for row in found.tolist())
    return float((sims >= exact[:, None] - 1e-6).mean())


def test_new_queries_find_their_neighbours(index: FastScanIndex, rows: UnitRows, keys: Keys) -> None:
    assert not index.exhaustive and index.plan().name.startswith("fastscan:dims=")
    assert index.plan().candidates < COUNT
    assert recall_of(index, rows, keys, None) >= 0.99
    assert recall_of(index, rows, keys, None, k=50) >= 0.99
    assert measure_recall(index, rows[:300]) >= 0.99


def test_without_lists_all_codes_are_gone_through(tmp_path: Path, rows: UnitRows, keys: Keys) -> None:
    index = FastScanIndex.build(tmp_path, [(keys, rows)], DIM)
    assert "lists=" not in index.options and "wide=" in index.options
    assert index.plan().candidates == COUNT and not index.exhaustive
    assert recall_of(index, rows, keys, None) >= 0.99


def test_queries_unlike_anything_on_file_are_looked_for_further(
    index: FastScanIndex, rows: UnitRows, keys: Keys
) -> None:
    """Far from everything, where codes tell little apart and the nearest lists hold few of the nearest."""
    strange = np.random.default_rng(7).standard_normal((100, DIM)).astype(np.float32)
    strange /= np.linalg.norm(strange, axis=1, keepdims=True)
    exact = np.sort(strange.astype(np.float64) @ rows.T.astype(np.float64), axis=1)[:, -10]
    _, sims = index.search(strange, 10)
    assert (sims >= exact[:, None] - 1e-6).mean() >= 0.9
    _, sims = index.search(strange, 10, keys[: COUNT // 2])
    exact = np.sort(strange.astype(np.float64) @ rows[: COUNT // 2].T.astype(np.float64), axis=1)[:, -10]
    assert (sims >= exact[:, None] - 1e-6).mean() >= 0.9


def test_lists_grow_with_the_rows() -> None:
    assert lists_for(LISTS_FROM - 1) == 1
    counts = [lists_for(count) for count in (LISTS_FROM, 200_000, 1_000_000, 10_000_000)]
    assert counts == sorted(counts) and all(count & (count - 1) == 0 for count in counts)


def test_questions_are_beside_what_is_on_file(rows: UnitRows) -> None:
    asked = displaced(rows[:500])
    assert asked.dtype == np.float32 and np.allclose(np.linalg.norm(asked, axis=1), 1, atol=1e-5)
    own = (asked * rows[:500]).sum(axis=1)
    assert 0.5 < own.mean() < 0.99 and np.array_equal(asked, displaced(rows[:500]))
    assert np.allclose(displaced(rows[:1]), rows[:1])  # there is no other to move it towards


@pytest.mark.parametrize("share", [0.003, 0.02, 0.2, 0.38, 0.5, 0.9])
@pytest.mark.parametrize("together", [False, True])
def test_a_filter_keeps_recall(index: FastScanIndex, rows: UnitRows, keys: Keys, share: float, together: bool) -> None:
    """Also where what passes lies together, as one modality does, and most queries lie elsewhere."""
    order = np.argsort(rows[:, 0]) if together else np.random.default_rng(1).permutation(COUNT)
    allowed = np.sort(keys[order[: int(share * COUNT)]])
    assert recall_of(index, rows, keys, allowed) >= 0.99


def test_similarities_are_those_of_every_other_index(index: FastScanIndex, rows: UnitRows) -> None:
    queries = rows[::97]
    found, sims = index.search(queries, 5)
    exact = np.array([[(index.vectors(np.array([key]))[0].astype(np.float64) * query).sum() for key in line]
                      for line, query in zip(found, queries, strict=True)])  # fmt: skip
    assert np.array_equal(sims, np.clip(exact.astype(np.float32), -1, 1))
    assert np.array_equal(sims[:, 0], exact_similarities(index, queries, 5)[:, 0])


def test_more_are_asked_for_than_codes_are_worth(index: FastScanIndex, rows: UnitRows, keys: Keys) -> None:
    found, _ = index.search(rows[:2], COUNT + 5)
    assert (found[:, :COUNT] > 0).all() and (found[:, COUNT:] == -1).all()
    assert set(found[0, :COUNT].tolist()) == set(keys.tolist())


def test_what_is_opened_answers_as_what_was_built(index: FastScanIndex, folder: Path, rows: UnitRows) -> None:
    opened = FastScanIndex.open(folder)
    assert opened.options == index.options and "probes=" in index.options and "take=" in index.options
    for one, other in zip(opened.search(rows[:50], 7), index.search(rows[:50], 7), strict=True):
        assert np.array_equal(one, other)


def test_one_query_or_many_or_several_at_once(index: FastScanIndex, rows: UnitRows) -> None:
    together = index.search(rows[:60], 10)
    alone: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * 60

    def ask(first: int) -> None:
        for n in range(first, 60, 3):
            alone[n] = index.search(rows[n : n + 1], 10)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(np.concatenate([found for found, _ in alone]), together[0])


def test_few_vectors_are_all_scored(tmp_path: Path) -> None:
    few = embeddings(300)
    index = FastScanIndex.build(tmp_path, [(np.arange(1, 301), few)], DIM, "take=96")
    assert index.exhaustive and index.plan().name == "exact" and index.options == "take=96"
    assert measure_recall(index, few) == 1.0
    assert FastScanIndex.open(tmp_path).exhaustive


@pytest.mark.parametrize("options", ["dims", "dims=0", "dims=33", "take=6,take=3", "m=16", "lists=8,probes=9", "Flat"])
def test_options_that_make_no_sense(options: str) -> None:
    with pytest.raises(UsageError):
        FastScanIndex.create(DIM, options)


@pytest.mark.parametrize("file", [*CODES_FILES, DIRECTIONS_FILE, MEAN_FILE, NOISE_FILE, FACTS_FILE])
def test_files_that_do_not_fit_are_told(index: FastScanIndex, folder: Path, tmp_path: Path, file: str) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if file == FACTS_FILE:
        (tmp_path / file).write_text(json.dumps({"options": "take=x", "coded": True}))
    else:
        (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:-50])
    with pytest.raises(CorruptIndex):
        FastScanIndex.open(tmp_path)


def test_codes_of_other_rows_are_told(index: FastScanIndex, folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    np.save(tmp_path / "keys.npy", np.arange(1, COUNT))
    np.save(tmp_path / "vectors.npy", index.rows.vectors[:-1])
    with pytest.raises(CorruptIndex, match="do not fit their 11999 rows"):
        FastScanIndex.open(tmp_path)


def test_a_projection_is_made_beside_simpleitk() -> None:
    """Both libraries are wrapped by SWIG, and the one loaded last takes over how a std::vector<float> is shown."""
    program = """
import faiss, SimpleITK
import numpy as np
from retrieval.indexes.projection import Projection
directions = np.eye(6, 3, dtype=np.float32)
print(type(faiss.LinearTransform(6, 3, True).A).__module__)
print(Projection.onto(directions, np.full(6, 0.5, np.float32)).of(np.eye(6, dtype=np.float32)).rows[0].tolist())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    shown_by, row = done.stdout.splitlines()
    assert shown_by.startswith("SimpleITK"), "the libraries no longer meet: this test shows nothing any more"
    assert json.loads(row) == [0.5, -0.5, -0.5]


def test_a_projection_keeps_what_varies(rows: UnitRows) -> None:
    found = Projection.learn(rows, 0)
    kept = found.directions.shape[1]
    assert kept % 32 == 0 and kept < DIM
    placed, centred = found.of(rows), rows - rows.mean(axis=0)
    shown = (placed.rows**2).sum(axis=1)
    assert shown.sum() >= 0.9 * (centred**2).sum()
    assert np.allclose(shown + placed.outside, (centred**2).sum(axis=1), atol=1e-4)
    assert np.allclose(found.directions.T @ found.directions, np.eye(kept), atol=1e-4)
    assert Projection.learn(rows[:50], 16).directions.shape == (DIM, 16)
