"""A small version of the swaps under load, and that its judge sees what it is there to see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.reliability.swap_answers import (
    RANKS,
    Answered,
    History,
    Judge,
    Moment,
    beacon_vector,
    head_of,
    probe_vector,
    similarities,
    true_between,
)
from benchmarks.reliability.swap_answers import beacon_id as beacon
from benchmarks.reliability.swaps import Plan, measure

DIM, PRINT = 16, "test-000000000001"


def test_swaps_under_asking_and_writing_clients_mix_nothing_and_fail_nothing(tmp_path: Path) -> None:
    plan = Plan(swaps=5, seconds=5.0, steady=2.0, cases=300, seed=4, asking=8, writing=2, period=0.4)
    outcome = measure(plan, tmp_path)
    assert (outcome.errors, outcome.mixed) == ([], [])
    assert sum(outcome.kinds.values()) == 5 and len(outcome.kinds) > 1
    assert outcome.written and outcome.steady and len(outcome.swapping) > 20


@pytest.fixture
def judge() -> Judge:
    """Of a gallery where version 1 came between 10 and 11 s, version 0 went between 20 and 21, and a generation with a
    head took over between 15 and 16."""
    states = [Moment(0, 0, (0,)), Moment(10, 11, (0, 1)), Moment(20, 21, (1,))]
    live = [Moment(0, 0, "plain"), Moment(15, 16, "adapted")]
    return Judge(History(states, live, {"plain": None, "adapted": head_of(PRINT, DIM)}), PRINT, DIM)


def answered(versions: tuple[int, ...], generation: str, at: float) -> Answered:
    """The right answer for probe 3 in that state and generation."""
    head = head_of(PRINT, DIM) if generation == "adapted" else None
    made = [(version, rank) for version in versions for rank in range(RANKS)]
    rows = [beacon_vector(3, version, rank, DIM) for version, rank in made]
    sims = similarities(head, probe_vector(3, DIM), rows)
    hits = sorted(zip((beacon(3, *each) for each in made), sims, sims, strict=True), key=lambda hit: -hit[1])
    return Answered(3, at, at + 0.1, generation, head.fingerprint if head else PRINT, tuple(hits))


def test_right_answers_of_every_moment_pass(judge: Judge) -> None:
    for versions, generation, at in (
        ((0,), "plain", 1), ((0,), "plain", 10.5), ((0, 1), "plain", 10.5), ((0, 1), "plain", 12),
        ((0, 1), "plain", 15.5), ((0, 1), "adapted", 15.5), ((0, 1), "adapted", 17), ((1,), "adapted", 20.5),
        ((1,), "adapted", 30),
    ):  # fmt: skip
        assert judge.fault(answered(versions, generation, at)) == ""


def test_stale_and_mixed_answers_are_told(judge: Judge) -> None:
    right = answered((0, 1), "adapted", 17)
    assert "expected one of" in judge.fault(answered((0, 1), "plain", 17))  # replaced before it was asked
    assert "expected one of" in judge.fault(answered((0,), "adapted", 14))  # not there yet
    assert "expected those of" in judge.fault(answered((0,), "adapted", 17))  # what was acknowledged is missing
    assert "expected those of" in judge.fault(answered((0, 1), "adapted", 22))  # deleted
    assert "expected those of" in judge.fault(replace(right, hits=right.hits[1:]))
    assert "expected those of" in judge.fault(replace(right, hits=(*right.hits[1:], right.hits[0])))
    assert "the answer says" in judge.fault(replace(right, fingerprint=PRINT))
    plain = {case_id: similarity for case_id, similarity, _ in answered((0, 1), "plain", 12).hits}
    mixed = tuple((case_id, plain[case_id], by_slices) for case_id, _, by_slices in right.hits)
    assert "it is" in judge.fault(replace(right, hits=mixed))  # similarities of the other generation
    mixed = tuple((case_id, similarity, plain[case_id]) for case_id, similarity, _ in right.hits)
    assert "it is" in judge.fault(replace(right, hits=mixed))  # slices of the other generation
    assert "0 hits" in judge.fault(replace(right, hits=()))


def test_what_is_true_between_two_times_includes_what_was_under_way() -> None:
    moments = [Moment(0, 0, "a"), Moment(10, 12, "b"), Moment(20, 22, "c")]
    assert true_between(moments, 1, 2) == ["a"]
    assert true_between(moments, 9, 10) == ["a", "b"]
    assert true_between(moments, 11, 11) == ["a", "b"]
    assert true_between(moments, 13, 14) == ["b"]
    assert true_between(moments, 5, 30) == ["a", "b", "c"]
