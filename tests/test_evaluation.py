"""Leave-one-patient-out evaluation against an independent version, and what it must refuse or tell."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import UsageError
from retrieval.evaluation import EvaluationReport, evaluate
from retrieval.types import UnitRows


def unit_rows(count: int, dim: int = 8, seed: int = 0) -> UnitRows:
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def plain(vectors: UnitRows, patients: list[str], values: list[set[str]], k: int) -> dict[str, float]:
    """The definition, one query at a time."""
    precision, recall, ap = [], [], []
    for q in range(len(vectors)):
        others = [i for i in range(len(vectors)) if i != q and (not patients[q] or patients[i] != patients[q])]
        others.sort(key=lambda i: (-float(vectors[q] @ vectors[i]), i))
        hits = [bool(values[q] & values[i]) for i in others]
        if any(hits):
            precision.append(sum(hits[:k]) / k)
            recall.append(sum(hits[:k]) / sum(hits))
            ap.append(np.mean([sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits) if hit]))
    return {f"P@{k}": np.mean(precision), f"R@{k}": np.mean(recall), "mAP": np.mean(ap)}


@given(st.integers(0, 10_000), st.integers(6, 40), st.booleans())
def test_agrees_with_the_definition(seed: int, count: int, several: bool) -> None:
    generator = np.random.default_rng(seed)
    vectors = unit_rows(count, seed=seed)
    patients = [("", "a", "b", "c", "d")[i] for i in generator.integers(0, 5, count)]
    values = [
        set(generator.choice(list("xyz"), size=1 + several * int(generator.integers(0, 2)))) for _ in range(count)
    ]
    patients[:2], values[1] = ["", ""], values[0]  # at least these two can answer one another
    expected = plain(vectors, patients, values, 5)
    report = evaluate(vectors, patients, [sorted(of_case) for of_case in values], ks=(5,), resamples=10)
    for name, value in expected.items():
        assert report.measure(name).value == pytest.approx(value, abs=1e-6)


def test_blocks_do_not_change_the_answer() -> None:
    vectors, patients = unit_rows(50), [f"p{i // 3}" for i in range(50)]
    values = [["x"] if i % 2 else ["y"] for i in range(50)]
    whole = evaluate(vectors, patients, values)
    for cells in (1, 120):  # one and two queries at a time
        assert evaluate(vectors, patients, values, block_cells=cells) == whole


def test_the_own_patient_is_excluded() -> None:
    """Each patient's two cases are copies: found when the patient is unknown, never when it is known."""
    vectors = np.repeat(np.eye(4, dtype=np.float32), 2, axis=0)
    values = [[name] for name in "aabbabab"]
    leaky = evaluate(vectors, [""] * 8, values, ks=(1,))
    assert leaky.measure("P@1").value == pytest.approx(0.5)
    assert "no patient id" in leaky.notes[0]
    honest = evaluate(vectors, ["p0", "p0", "p1", "p1", "p2", "p2", "p3", "p3"], values, ks=(1,))
    assert honest.patients == 4
    assert not honest.notes


def test_chance_is_the_share_of_relevant_cases_under_the_same_exclusion() -> None:
    vectors, patients = unit_rows(6), ["p", "p", "q", "r", "s", "t"]
    report = evaluate(vectors, patients, [["x"], ["x"], ["x"], ["x"], ["y"], ["y"]], ks=(1,))
    # two queries of p see 2 x of 4, q and r see 3 x of 5, s and t see 1 y of 5
    assert report.measure("P@1").chance == pytest.approx(np.mean([2 / 4, 2 / 4, 3 / 5, 3 / 5, 1 / 5, 1 / 5]))


def test_random_vectors_score_at_chance() -> None:
    generator = np.random.default_rng(2)
    values = [[name] for name in generator.choice(["x", "y", "z"], 600, p=[0.6, 0.3, 0.1])]
    report = evaluate(unit_rows(600, 64), [f"p{i // 2}" for i in range(600)], values)
    for measure in report.measures:
        assert measure.value == pytest.approx(measure.chance, abs=0.03)
        assert measure.low <= measure.value <= measure.high


def test_cases_no_one_can_answer_are_counted_and_told() -> None:
    report = evaluate(unit_rows(5), list("abcdd"), [["x"], ["x"], [], ["only"], ["only"]])
    assert (report.cases, report.queries, report.unanswerable) == (4, 2, 2)
    assert "2 of 4 cases have no case of another patient" in report.notes[0]
    lonely = next(row for row in report.per_class if row.value == "only")
    assert lonely.queries == 0
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["per_class"][0]["chance"] is None


def test_origin_oracle_tells_a_label_that_is_the_data_set() -> None:
    """Lesion-free cases all come from one source: knowing the source alone answers the label."""
    patients, sources = [f"p{i}" for i in range(40)], ["A"] * 20 + ["B"] * 20
    values = [["flag"]] * 20 + [["clear"]] * 20
    report = evaluate(unit_rows(40), patients, values, ks=(1, 5), origins=sources)
    assert report.measure("P@5").origin == pytest.approx(1.0)
    assert report.measure("mAP").origin is None
    mixed = evaluate(unit_rows(40), patients, values, ks=(5,), origins=["A", "B"] * 20).measure("P@5")
    assert mixed.origin == pytest.approx(np.mean([9 / 19] * 40))


def test_class_rows_count_only_their_own_value() -> None:
    vectors = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)
    values = [["x", "w"], ["x"], ["x"], ["y", "w"], ["y"], ["y"]]
    report = evaluate(vectors, list("abcdef"), values, ks=(2,))
    rows = {row.value: row for row in report.per_class}
    assert rows["x"].precision == ((2, 1.0),)
    assert rows["w"].precision == ((2, 0.0),)
    assert (rows["w"].cases, rows["w"].patients) == (2, 2)


def test_same_seed_same_report() -> None:
    def run(seed: int) -> EvaluationReport:
        return evaluate(unit_rows(40), [f"p{i}" for i in range(40)], [["x"], ["y"]] * 20, seed=seed)

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([[], [], []], "No case has a value"),
        ([["x"], ["y"], ["z"]], "nothing can be evaluated"),
        ([["x"]], "one vector, one patient key"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(values: list[list[str]], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        evaluate(unit_rows(3), ["a", "b", "c"], values)
    with pytest.raises(UsageError, match="at least 1"):
        evaluate(unit_rows(3), ["a", "b", "c"], [["x"]] * 3, ks=())
