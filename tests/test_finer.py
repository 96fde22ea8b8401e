"""Long rows are told apart by their places in the smaller space before they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import CorruptIndex
from retrieval.indexes.choice import CODED_FROM
from retrieval.indexes.fastscan import FastScanIndex
from retrieval.indexes.finer import PLACES_FILE, suits
from retrieval.indexes.nomination import NOISE_FILE
from retrieval.types import Keys, UnitRows

DIM, COUNT, INNER = 400, CODED_FROM + 500, 24
OPTIONS = "dims=32,lists=32,probes=16,reach=300,look=256,take=24"


def embeddings(count: int, seed: int = 0) -> UnitRows:
    """Clusters in a space of 24 directions, seen through 400 numbers."""
    shared, rng = np.random.default_rng(99), np.random.default_rng(seed)
    centres, turn = shared.standard_normal((60, INNER)), shared.standard_normal((INNER, DIM))
    inner = centres[rng.integers(0, len(centres), count)] + 0.7 * rng.standard_normal((count, INNER))
    rows = (inner @ turn + 0.2 * rng.standard_normal((count, DIM))).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def rows() -> UnitRows:
    return embeddings(COUNT)


@pytest.fixture(scope="module")
def keys() -> Keys:
    return np.arange(1, COUNT + 1) * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, rows: UnitRows, keys: Keys) -> Path:
    folder = tmp_path_factory.mktemp("finer")
    pieces = ((keys[n : n + 1000], rows[n : n + 1000]) for n in range(0, COUNT, 1000))
    FastScanIndex.build(folder, pieces, DIM, OPTIONS)
    return folder


def copied(folder: Path, to: Path) -> Path:
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def recall_of(index: FastScanIndex, rows: UnitRows, keys: Keys, allowed: Keys | None, k: int = 10) -> float:
    queries = embeddings(200, seed=5)
    chosen = rows if allowed is None else rows[np.isin(keys, allowed)]
    exact = np.sort(queries.astype(np.float64) @ chosen.T.astype(np.float64), axis=1)[:, -k]
    found, sims = index.search(queries, k, allowed)
    assert (found > 0).all() and (allowed is None or np.isin(found, allowed).all())
    return float((sims >= exact[:, None] - 1e-6).mean())


def test_places_are_where_rows_lie_among_the_directions(folder: Path, rows: UnitRows) -> None:
    """Recomputed from the files alone."""
    places = np.load(folder / PLACES_FILE)
    mean, directions = np.load(folder / "mean.npy"), np.load(folder / "directions.npy")
    assert places.dtype == np.float32 and places.shape == (COUNT, 32)
    assert np.allclose(places, (rows - mean) @ directions, atol=1e-5)


@pytest.mark.parametrize("k", [1, 10, 60])
def test_neighbours_are_found_and_few_rows_are_read(folder: Path, rows: UnitRows, keys: Keys, k: int) -> None:
    index = FastScanIndex.open(folder)
    assert "look=256" in index.options and not index.exhaustive
    assert recall_of(index, rows, keys, None, k) >= 0.99


@pytest.mark.parametrize("share", [0.18, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("together", [False, True])
def test_a_filter_keeps_recall(folder: Path, rows: UnitRows, keys: Keys, share: float, together: bool) -> None:
    order = np.argsort(rows[:, 0]) if together else np.random.default_rng(1).permutation(COUNT)
    allowed = np.sort(keys[order[: int(share * COUNT)]])
    assert recall_of(FastScanIndex.open(folder), rows, keys, allowed) >= 0.99


def test_who_is_told_apart_poorly_by_codes_is_told_apart_by_places(folder: Path, rows: UnitRows) -> None:
    """The order of the nominees is by the distance of their places, and nobody comes or goes."""
    nomination = FastScanIndex.open(folder)._state.nomination
    assert nomination is not None and nomination.lists is not None and nomination.finer is not None
    placed = nomination.projection.of(embeddings(5, seed=8))
    coarse = nomination.lists.near(placed, 100, nomination.lists.nearest(placed, 8))
    looked = nomination.finer.of(placed, coarse)
    assert np.array_equal(np.sort(looked.nominees, axis=1), np.sort(coarse.nominees, axis=1))
    places = nomination.finer.places.astype(np.float64)
    for query, line in zip(placed.rows.astype(np.float64), looked.nominees, strict=True):
        assert (np.diff(((places[line] - query) ** 2).sum(axis=1)) >= -1e-5).all()
    assert nomination.finer.noise.spread < nomination.lists.noise.spread
    assert looked.coarse is coarse


def test_saved_elsewhere_and_held_in_memory_it_answers_the_same(
    folder: Path, tmp_path: Path, rows: UnitRows, keys: Keys
) -> None:
    opened, grown = FastScanIndex.open(folder), FastScanIndex.create(DIM, OPTIONS)
    grown.add(keys, rows)
    grown.save(tmp_path)
    assert np.array_equal(np.load(tmp_path / PLACES_FILE), np.load(folder / PLACES_FILE))
    queries = embeddings(50, seed=2)
    for index in (grown, FastScanIndex.open(tmp_path)):
        for one, other in zip(opened.search(queries, 10), index.search(queries, 10), strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize(("options", "dim"), [("dims=32,lists=32,probes=16,take=48", 120), ("dims=32,take=48", DIM)])
def test_places_are_kept_only_where_they_are_looked_at(
    tmp_path: Path, rows: UnitRows, keys: Keys, options: str, dim: int
) -> None:
    """Short rows are as quick to read, and without lists everybody is nominated anyway."""
    assert suits(DIM, 32) and not suits(120, 32)
    short = np.ascontiguousarray(rows[:, :dim] / np.linalg.norm(rows[:, :dim], axis=1, keepdims=True))
    index = FastScanIndex.build(tmp_path, [(keys, short)], dim, options)
    assert "look=" not in index.options
    assert not (tmp_path / PLACES_FILE).exists()


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def of_fewer_rows(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


def of_other_directions(path: Path) -> None:
    np.save(path, np.load(path)[:, :-2])


def of_columns(path: Path) -> None:
    np.save(path, np.asfortranarray(np.load(path)))


def of_other_numbers(path: Path) -> None:
    np.save(path, np.load(path).astype(np.float64))


@pytest.mark.parametrize(
    "harm", [damaged, of_fewer_rows, of_other_directions, of_columns, of_other_numbers, Path.unlink]
)
def test_places_that_do_not_fit_are_told(folder: Path, tmp_path: Path, harm: Callable[[Path], None]) -> None:
    copied(folder, tmp_path)
    harm(tmp_path / PLACES_FILE)
    with pytest.raises(CorruptIndex):
        FastScanIndex.open(tmp_path)


def test_places_without_their_noise_are_not_looked_at(folder: Path, tmp_path: Path) -> None:
    copied(folder, tmp_path)
    np.save(tmp_path / NOISE_FILE, np.load(tmp_path / NOISE_FILE)[:2])
    nomination = FastScanIndex.open(tmp_path)._state.nomination
    assert nomination is not None and nomination.finer is None
