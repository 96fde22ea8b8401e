"""Classifying by neighbours where the true probabilities are known, and against a recomputation by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from retrieval import Gallery
from retrieval.curves import area_by_chance, auc
from retrieval.errors import UsageError
from retrieval.evidence.calibration import Method, brier, fit, scaled
from retrieval.evidence.classify import classify
from retrieval.evidence.kept import Kept
from retrieval.evidence.neighbours import Ties, nearest
from retrieval.evidence.operating import Answer, at_sensitivity
from retrieval.evidence.plain import classification_json
from retrieval.evidence.reliability import by_chance, calibration_error
from retrieval.evidence.voting import rates_without, voting_fit
from retrieval.filters import parse
from retrieval.heads import Heads
from retrieval.types import GroupBy, Label, SamePatient
from tests.adapter_cases import open_small
from tests.evidence_cases import VALUES, angles, asked, drawn, on_file, posterior, unlike, vectors

COUNT = 900


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """900 cases, three to a patient: one value of ``kind`` each, any of two ``findings``; 14 more with others."""
    at = angles(COUNT, seed=1)
    kinds, rng = drawn(at, seed=2), np.random.default_rng(3)
    labels = []
    for angle, kind in zip(at, kinds, strict=True):
        said = [Label("kind", kind)]
        if rng.random() < 0.5 + 0.4 * np.cos(angle):
            said.append(Label("findings", "east"))
        if rng.random() < 0.5 + 0.4 * np.sin(angle):
            said.append(Label("findings", "north"))
        labels.append(said if len(said) > 1 else [*said, Label("findings", "none")])
    few = [[Label("rare", "yes" if n % 2 else "no"), Label("number", str(n), float(n))] for n in range(14)]
    with open_small(tmp_path_factory.mktemp("circle") / "home") as opened:
        opened.add(on_file(at, labels, each=3))
        opened.add(on_file(angles(14, seed=4), few, first=9000))
        yield opened


def test_probabilities_are_the_true_ones(gallery: Gallery) -> None:
    at = angles(200, seed=5)
    found = [classify(gallery, asked(angle), label="kind") for angle in at]
    probabilities = np.array(
        [[next(v.probability for v in one.values if v.value == name) for name in VALUES] for one in found]
    )
    assert np.allclose(probabilities.sum(axis=1), 1.0)
    assert np.abs(probabilities - posterior(at)).mean() < 0.07
    happened = np.array(drawn(at, seed=6))
    for n, value in enumerate(VALUES):
        error = calibration_error(probabilities[:, n], happened == value)
        assert error <= max(0.05, by_chance(probabilities[:, n]).high)


def test_several_values_of_one_case(gallery: Gallery) -> None:
    at = angles(60, seed=7)
    for angle in at:
        found = classify(gallery, asked(angle), label="findings")
        of = {value.value: value.probability for value in found.values}
        assert not found.exclusive
        assert of["east"] == pytest.approx(0.5 + 0.4 * np.cos(angle), abs=0.3)
        assert of["north"] == pytest.approx(0.5 + 0.4 * np.sin(angle), abs=0.3)


def test_the_vote_is_of_what_search_finds(gallery: Gallery) -> None:
    found = classify(gallery, asked(1.0), label="kind", k=10)
    hits = gallery.search(asked(1.0), k=10, filters=parse({"not": {"label.kind": None}}), group=GroupBy.PATIENT).hits
    assert [hit.case.case_id for hit in found.neighbours.hits] == [hit.case.case_id for hit in hits]
    weights = np.exp(np.array([hit.similarity for hit in hits]) / found.way.temperature)
    weights /= weights.sum()
    for value in found.values:
        having = [any(said.value == value.value for said in hit.case.labels) for hit in hits]
        assert value.votes.share == pytest.approx(weights[having].sum())
        assert value.votes.count == sum(having)
        assert value.votes.case_ids == tuple(h.case.case_id for h, has in zip(hits, having, strict=True) if has)
    voters = 1.0 / (weights**2).sum()
    if found.method is Method.NONE:
        for value in found.values:
            expected = (voters * value.votes.share + value.votes.base_rate) / (voters + 1)
            assert value.probability == pytest.approx(expected)


def test_a_case_on_file_has_no_vote_of_its_own_patient(gallery: Gallery) -> None:
    found = classify(gallery, gallery.query_of("case-00004"), label="kind")
    assert not {"case-00003", "case-00004", "case-00005"} & {hit.case.case_id for hit in found.neighbours.hits}
    own = classify(gallery, gallery.query_of("case-00004"), label="kind", same_patient=SamePatient.INCLUDE)
    assert any("other patients" in note for note in own.notes)


def test_sensitivity_is_a_parameter_and_costs_no_fit(gallery: Gallery) -> None:
    fit_before = voting_fit(gallery, "kind")
    previous = 1.0
    for sensitivity in (0.5, 0.9, 0.99):
        found = classify(gallery, asked(0.3), label="kind", sensitivity=sensitivity, specificity=0.8)
        for value in found.values:
            assert value.rule_in is not None and value.rule_out is not None
            column = fit_before.ballot.values.index(value.value)
            scores, truth = fit_before.chosen.fitted[:, column], fit_before.truth[:, column]
            assert value.rule_out == at_sensitivity(scores, truth, sensitivity)
            assert value.rule_out.sensitivity >= sensitivity
            assert value.rule_in.name == "specificity>=0.80" and value.rule_in.specificity >= 0.8
        threshold = next(v.rule_out.threshold for v in found.values if v.value == "calm" and v.rule_out)
        assert threshold <= previous
        previous = threshold
    assert voting_fit(gallery, "kind") is fit_before


def test_held_out_figures_against_numpy(gallery: Gallery) -> None:
    fitted = voting_fit(gallery, "kind")
    assert fitted.quality is not None and fitted.chosen.held_out is not None
    errors = []
    for n in range(3):
        p, y = fitted.chosen.held_out[:, n], fitted.truth[:, n]
        at = np.minimum((p * 10).astype(int), 9)
        errors.append(sum(abs((y[at == b] - p[at == b]).sum()) for b in range(10)) / len(p))
    assert fitted.quality.mean_after == pytest.approx(np.mean(errors))
    assert fitted.quality.mean_after <= 0.05
    keys = fitted.fitted_on
    assert (keys.cases, keys.patients, keys.queries, keys.folds) == (COUNT, COUNT // 3, COUNT, 5)


def test_votes_of_the_sample_are_those_of_a_search(gallery: Gallery) -> None:
    """Raw votes of the fit, against a brute-force loop over cases with the patient left out."""
    fitted = voting_fit(gallery, "kind", k=7)
    labelled = gallery.catalog.labelled("kind")
    rows = gallery.catalog.vectors_of(labelled.keys)[1].astype(np.float64)
    way = fitted.chosen.way
    for query in (0, 100, 899):
        kept: dict[str, int] = {}
        for n in np.argsort(-(rows @ rows[query]), kind="stable").tolist():
            patient = labelled.patient_keys[n]
            if patient != labelled.patient_keys[query] and patient not in kept:
                kept[patient] = n
        near = list(kept.values())[:7]
        weights = np.exp((rows @ rows[query])[near] / way.temperature)
        weights /= weights.sum()
        others = [n for n in range(COUNT) if labelled.patient_keys[n] != labelled.patient_keys[query]]
        for column, value in enumerate(fitted.ballot.values):
            share = sum(w for w, n in zip(weights, near, strict=True) if value in labelled.values[n])
            base = np.mean([value in labelled.values[n] for n in others])  # every patient has three cases
            voters = 1.0 / (weights**2).sum()
            expected = (voters * share + base) / (voters + 1)
            assert fitted.chosen.raw[query, column] == pytest.approx(expected, abs=1e-5)


def test_too_few_patients_are_told(gallery: Gallery) -> None:
    found = classify(gallery, asked(0.0), label="rare")
    assert all(value.answer is Answer.UNKNOWN and "at least 10 patients" in value.note for value in found.values)
    assert all(value.rule_in is None and value.auc is None for value in found.values)
    assert sum(value.probability for value in found.values) == pytest.approx(1.0)


def test_what_votes_can_not_tell_is_neither_positive_nor_negative(tmp_path: Path) -> None:
    """A label that has nothing to do with the pictures: every threshold is luck, and so would every answer be."""
    at, rng = angles(240, seed=12), np.random.default_rng(13)
    labels = [[Label("coin", str(rng.choice(["heads", "tails", "edge"])))] for _ in at]
    with open_small(tmp_path / "home") as opened:
        opened.add(on_file(at, labels))
        values = [
            value for angle in angles(20, seed=14) for value in classify(opened, asked(angle), label="coin").values
        ]
    assert {value.answer for value in values} == {Answer.UNKNOWN}
    assert all("better than chance" in value.note and value.rule_in is None for value in values)
    assert all(len(value.cuts) == 2 and value.auc is not None for value in values)


def test_a_query_unlike_all_on_file_is_neither_positive_nor_negative(gallery: Gallery) -> None:
    found = classify(gallery, unlike(), label="kind")
    assert found.neighbours.no_confident_match
    for value in found.values:
        assert value.answer is Answer.UNKNOWN and value.rule_in is None and "no confident match" in value.note
    near = classify(gallery, asked(0.0), label="kind")
    assert not near.neighbours.no_confident_match and near.values[0].answer is not Answer.UNKNOWN


def test_area_by_chance_against_draws() -> None:
    rng = np.random.default_rng(15)
    truth = np.arange(120) < 15
    areas = [auc(rng.random(120), truth) for _ in range(2000)]
    assert np.mean(np.array(areas) > area_by_chance(15, 105)) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize(
    ("asked_for", "sentence"),
    [
        ({"label": "finding"}, "label on file, which are 'findings', 'kind'"),
        ({"label": "number"}, "it can be estimated, not classified"),
        ({"label": "kind", "sensitivity": 0.0}, "sensitivity above 0"),
        ({"label": "kind", "specificity": 1.5}, "specificity above 0"),
        ({"label": "kind", "k": 0}, "k must be from 1"),
        ({"label": "kind", "filters": parse({"modality": "CT"})}, "passes the filter"),
        ({"label": ""}, "name of a label"),
    ],
)
def test_what_can_not_be_classified_is_told(gallery: Gallery, asked_for: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        classify(gallery, asked(0.0), **asked_for)  # type: ignore[arg-type]


def test_a_filter_restricts_voters_and_what_they_are_judged_by(gallery: Gallery) -> None:
    only = parse({"label.findings": "east"})
    found = classify(gallery, asked(0.0), label="kind", filters=only)
    assert found.fitted_on.cases < COUNT
    assert all(any(said.value == "east" for said in hit.case.labels) for hit in found.neighbours.hits)


def test_the_answer_is_plain_json(gallery: Gallery) -> None:
    plain = classification_json(classify(gallery, asked(0.0), label="kind"))
    names = {point["name"] for point in plain["values"][0]["operating_points"]}
    assert {plain["values"][0]["rule_in"], plain["values"][0]["rule_out"]} <= names


def test_nearest_against_brute_force() -> None:
    rng = np.random.default_rng(9)
    rows = vectors(angles(300, seed=10))
    rows = rows + 0.1 * rng.standard_normal(rows.shape).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ties = Ties(rng.integers(0, 90, 300), rng.integers(0, 60, 300))
    queries = np.arange(0, 300, 7)
    batches = [(np.arange(s, min(s + 64, 300)), rows[s : s + 64]) for s in range(0, 300, 64)]
    found = nearest(queries, rows[queries], batches, ties, 12)
    for row, query in enumerate(queries.tolist()):
        best: dict[int, int] = {}
        for n in np.argsort(-(rows @ rows[query]), kind="stable").tolist():
            if ties.groups[n] != ties.groups[query] and ties.patients[n] not in best:
                best[int(ties.patients[n])] = n
        assert found.cases[row].tolist() == list(best.values())[:12]


def test_base_rates_of_the_others() -> None:
    patients, groups = np.array([0, 0, 1, 2]), np.array([0, 0, 0, 1])
    members = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], dtype=bool)
    rates = rates_without(members, Ties(patients, groups))
    assert rates[1].tolist() == [pytest.approx((0.5 + 1) / 2), pytest.approx((0.5 + 0) / 2)]
    assert rates[0].tolist() == [0.0, 1.0]


def test_a_temperature_mends_what_is_too_sure_and_none_leaves_votes_alone() -> None:
    rng = np.random.default_rng(11)
    true = np.clip(rng.random((4000, 1)), 0.02, 0.98)
    votes = scaled(true, np.array([0.5]), 2.0, exclusive=False)
    truth = rng.random((4000, 1)) < true
    calibrator = fit(Method.TEMPERATURE, votes, truth, np.array([0.5]), np.array([True]), exclusive=False)
    assert calibrator.factor == pytest.approx(0.5, abs=0.05)
    assert np.abs(calibrator.apply(votes) - true).mean() < 0.02
    steps = fit(Method.ISOTONIC, votes, truth, np.array([0.5]), np.array([True]), exclusive=False)
    assert brier(steps.apply(votes), truth).mean() < brier(votes, truth).mean()


def test_a_threshold_can_be_chosen_where_steps_are_flat() -> None:
    """A rare value: votes order the cases well, and what is as often true at one vote as at another is one step."""
    rng = np.random.default_rng(12)
    truth = rng.random(600) < 0.05
    votes = np.round(np.clip(0.05 * rng.random(600) + np.where(truth, 0.05 * rng.random(600), 0.0), 0, 1), 3)[:, None]
    steps = fit(Method.ISOTONIC, votes, truth[:, None], np.array([0.05]), np.array([True]), exclusive=False)
    fitted = steps.apply(votes)[:, 0]
    assert len(np.unique(fitted)) == len(np.unique(votes)) and (np.diff(fitted[np.argsort(votes[:, 0])]) >= 0).all()
    points = [at_sensitivity(scores, truth, 0.9) for scores in (fitted, votes[:, 0])]
    assert points[0].specificity == points[1].specificity > 0
    plain = (fitted - 1e-3 * votes[:, 0]) / (1 - 1e-3)  # the steps themselves, by which this is seen to matter
    assert at_sensitivity(np.round(plain, 9), truth, 0.9).specificity < points[0].specificity


def test_kept_until_a_tenth_has_changed_and_worked_out_once() -> None:
    kept, calls = Kept(), list[int]()

    def work() -> int:
        calls.append(1)
        return len(calls)

    threads = [threading.Thread(target=lambda: kept.of("a", Heads(last_key=100), 100, work)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert kept.of("a", Heads(last_key=110), 110, work) == 1
    assert kept.of("a", Heads(last_key=106, last_edit=6), 106, work) == 2
    assert kept.of("b", Heads(last_key=106), 106, work) == 3
