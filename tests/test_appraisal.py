"""An appraisal's figures against independent versions of a few lines: votes, thresholds, errors, groups, gaps."""

from __future__ import annotations

import json
from dataclasses import replace

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, P, R, nDCG

from retrieval.appraisal import observation
from retrieval.appraisal.answered import Answered, answered
from retrieval.appraisal.appraise import appraise
from retrieval.appraisal.compare import compare, matched
from retrieval.appraisal.confusions import confusions
from retrieval.appraisal.fairness import by_group
from retrieval.appraisal.gates import Gate, broken_gates
from retrieval.appraisal.statistics import Area, Average, CalibrationError, Mean, taken
from retrieval.appraisal.subjects import Grouping, Subjects, age_group, groupings
from retrieval.appraisal.types import Appraisal
from retrieval.errors import UsageError
from retrieval.evidence.operating import youden
from retrieval.evidence.sample import folds_of
from retrieval.resampling import Draws
from retrieval.types import Attributes

VALUES = ("calm", "dense", "odd")


def subjects(count: int = 240, seed: int = 0, noise: float = 1.0) -> Subjects:
    """Two cases a patient; the vector tells the value, less clearly for men; "rare" is had by three cases."""
    generator = np.random.default_rng(seed)
    kinds = generator.integers(0, 3, count)
    sexes = np.array(["F", "M"])[generator.integers(0, 2, count)]
    rows = np.eye(3, 16)[kinds] * np.where(sexes == "F", 2.5, 1.0)[:, None] + generator.normal(size=(count, 16)) * noise
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    values = tuple((VALUES[kind], "rare") if row < 3 else (VALUES[kind],) for row, kind in enumerate(kinds))
    return Subjects(
        vectors=rows.astype(np.float32),
        case_ids=tuple(f"case-{row}" for row in range(count)),
        patient_keys=tuple(f"p{row // 2}" for row in range(count)),
        values=values,
        attributes=tuple(
            Attributes(sex=str(sexes[row]), age=float(row % 95), source="B" if kinds[row] == 0 and row % 3 else "A")
            for row in range(count)
        ),
        content=tuple(f"sha-{row}" for row in range(count)),
    )


@pytest.fixture(scope="module")
def study() -> Subjects:
    return subjects()


@pytest.fixture(scope="module")
def done(study: Subjects) -> Appraisal:
    return appraise(study, resamples=200)


@pytest.fixture(scope="module")
def asked(study: Subjects) -> Answered:
    return answered(study, (1, 5, 10), 0)


def test_ranking_measures_agree_with_a_library(study: Subjects, done: Appraisal) -> None:
    similarities = study.vectors @ study.vectors.T
    truth, run = {}, {}
    for query, own in enumerate(study.patient_keys):
        others = [row for row in range(len(study)) if study.patient_keys[row] != own]
        truth[str(query)] = {str(row): int(bool(set(study.values[row]) & set(study.values[query]))) for row in others}
        run[str(query)] = {str(row): float(similarities[query, row]) for row in others}
    expected = ir_measures.calc_aggregate([P @ 1, P @ 5, P @ 10, R @ 10, AP, nDCG @ 10], truth, run)
    names = {"P@1": P @ 1, "P@5": P @ 5, "P@10": P @ 10, "R@10": R @ 10, "mAP": AP, "nDCG@10": nDCG @ 10}
    for name, measure in names.items():
        assert done.report.measure(name).value == pytest.approx(expected[measure], abs=1e-6)


def test_a_value_that_few_have_is_named_and_not_measured(done: Appraisal) -> None:
    assert [one.value for one in done.values] == list(VALUES)
    assert [(one.value, one.cases) for one in done.small_values] == [("rare", 3)]
    assert len(done.ways) == 5


def test_shares_and_thresholds_owe_nothing_to_the_fold(study: Subjects, asked: Answered) -> None:
    """Other labels in a fold change nothing that other folds chose, and no share of a case in the fold itself."""
    held = asked.held
    assert held is not None
    fold = folds_of(asked.cohort.patients)
    spoilt = list(study.values)
    for row in np.flatnonzero(fold == 2):
        spoilt[row] = (VALUES[(VALUES.index(spoilt[row][0]) + 1) % 3],)
    other = answered(replace(study, values=tuple(spoilt)), (5,), 0).held
    assert other is not None
    for name, thresholds in held.thresholds.items():
        assert other.thresholds[name][2] == pytest.approx(thresholds[2])
    inside = fold == 2
    assert other.shares[inside] == pytest.approx(held.shares[inside])
    assert other.probabilities[inside] == pytest.approx(held.probabilities[inside])
    assert not np.array_equal(other.truth[inside], held.truth[inside])


def test_shares_of_the_plain_vote(study: Subjects, asked: Answered) -> None:
    """One neighbour a patient from other folds, softmax weights, and one more voter that votes as the gallery does."""
    held = asked.held
    assert held is not None
    fold = folds_of(asked.cohort.patients)
    k, temperature = (float(part) for part in held.ways[0].replace(",", "").split()[:4:3])
    query = int(np.flatnonzero(fold == 0)[0])
    inside = np.flatnonzero(fold != 0)
    near = inside[np.argsort(-(study.vectors[inside] @ study.vectors[query]), kind="stable")]
    seen: dict[str, int] = {}
    for row in near:
        seen.setdefault(study.patient_keys[row], int(row))
    voters = list(seen.values())[: int(k)]
    weights = np.exp((study.vectors[voters] @ study.vectors[query]) / temperature)
    weights /= weights.sum()
    votes = np.array([weights[[value in study.values[row] for row in voters]].sum() for value in VALUES])
    by_patient = {key: [row for row in inside if study.patient_keys[row] == key] for key in set(study.patient_keys)}
    rates = np.array(
        [
            np.mean([np.mean([value in study.values[row] for row in rows]) for rows in by_patient.values() if rows])
            for value in VALUES
        ]
    )
    size = 1 / (weights**2).sum()
    assert held.shares[query] == pytest.approx((size * votes + rates) / (size + 1), abs=0.02)  # temperature is rounded


def test_areas_and_operating_figures(done: Appraisal, asked: Answered) -> None:
    held = asked.held
    assert held is not None
    for number, figures in enumerate(done.values):
        scores, truth = held.shares[:, number], held.truth[:, number]
        wins = scores[truth][:, None] - scores[~truth][None, :]
        assert figures.auc.value == pytest.approx((np.sign(wins) / 2 + 0.5).mean())
        assert figures.auc.low <= figures.auc.value <= figures.auc.high
        point = figures.points[0]
        flagged = held.flagged["youden"][:, number]
        assert point.sensitivity.value == pytest.approx(flagged[truth].mean())
        assert point.specificity.value == pytest.approx((~flagged)[~truth].mean())
        assert point.positive_predictive_value.value == pytest.approx(truth[flagged].mean())
        assert point.negative_predictive_value.value == pytest.approx((~truth)[~flagged].mean())
        at = held.thresholds["youden"][:, number]
        assert (point.least_threshold, point.greatest_threshold) == (at.min(), at.max())
    assert done.auc.value == pytest.approx(np.mean([one.auc.value for one in done.values]))


def test_youden_by_hand() -> None:
    scores, truth = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    point = youden(scores, truth)
    assert (point.threshold, point.sensitivity, point.specificity) == (0.8, 0.5, 1.0)


def plain_error(probabilities: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> float:
    """Class-wise expected calibration error with weighted cases."""
    errors = []
    for column, happened in zip(probabilities.T, truth.T, strict=True):
        bins = np.minimum((column * 10).astype(int), 9)
        gaps = [abs((weights * (column - happened))[bins == number].sum()) for number in range(10)]
        errors.append(sum(gaps) / weights.sum())
    return float(np.mean(errors))


def test_calibration_error_and_its_draws(done: Appraisal, asked: Answered) -> None:
    held, calibration = asked.held, done.calibration
    assert held is not None
    assert calibration is not None
    ones = np.ones(len(held.truth))
    assert calibration.error.value == pytest.approx(plain_error(held.probabilities, held.truth, ones))
    assert calibration.raw_error.value == pytest.approx(plain_error(held.shares, held.truth, ones))
    assert calibration.brier.value == pytest.approx(((held.probabilities - held.truth) ** 2).mean())
    assert sum(one.count for one in calibration.bins) == held.truth.size
    draws = Draws.of(asked.patients, 3, 20)
    chosen = np.arange(len(ones)) % 3 > 0
    drawn = CalibrationError("ECE", held.probabilities, held.truth).drawn(draws, chosen)
    weights = np.concatenate(list(draws.weights(np.arange(len(ones))))) * chosen
    plain = np.array([plain_error(held.probabilities, held.truth, row) for row in weights])
    value = plain_error(held.probabilities, held.truth, chosen.astype(float))
    assert drawn == pytest.approx(np.maximum(plain - plain.mean() + value, 0))
    assert calibration.error.low <= calibration.error.value <= calibration.error.high


def test_calibration_error_by_hand() -> None:
    error = CalibrationError(
        "ECE", np.array([[0.05], [0.15], [0.95], [0.95]]), np.array([[0], [1], [1], [0]], dtype=bool)
    )
    assert error.value(np.ones(4, dtype=bool)) == pytest.approx((0.05 + 0.85 + 2 * 0.45) / 4)


def test_precision_at_other_prevalences_is_that_of_drawing_cases_away(study: Subjects, done: Appraisal) -> None:
    """2 % of "odd", by drawing: a case of the query's patient is never there, which the expectation knows too."""
    generator = np.random.default_rng(7)
    having = np.array(["odd" in values for values in study.values])
    found = []
    for query in np.flatnonzero(having):
        others = np.array([key != study.patient_keys[query] for key in study.patient_keys])
        with_it, without = np.flatnonzero(having & others), np.flatnonzero(~having & others)
        for _ in range(30):
            kept = np.concatenate(
                [generator.choice(with_it, round(len(without) * 0.02 / 0.98), replace=False), without]
            )
            first = kept[np.argsort(-(study.vectors[kept] @ study.vectors[query]))[:5]]
            found.append(having[first].mean())
    figures = next(one for one in done.values if one.value == "odd").rarer[1]
    assert figures.prevalence == 0.02
    assert figures.precision.value == pytest.approx(np.mean(found), abs=0.01)
    assert figures.chance == pytest.approx(0.02, abs=0.005)


def test_the_origin_oracle_knows_what_the_source_gives_away(done: Appraisal, study: Subjects) -> None:
    calm = next(one for one in done.values if one.value == "calm")
    shares, truth = [], []
    for query, own in enumerate(study.patient_keys):
        same = [
            row for row, one in enumerate(study.attributes)
            if one.source == study.attributes[query].source and study.patient_keys[row] != own
        ]  # fmt: skip
        shares.append(np.mean(["calm" in study.values[row] for row in same]))
        truth.append("calm" in study.values[query])
    wins = np.array(shares)[truth][:, None] - np.array(shares)[~np.array(truth)][None, :]
    assert calm.origin_auc == pytest.approx((np.sign(np.round(wins, 12)) / 2 + 0.5).mean())
    assert calm.origin_auc > 0.7


def test_groups_gaps_and_small_groups(study: Subjects, done: Appraisal, asked: Answered) -> None:
    by_sex = next(one for one in done.fairness if one.attribute == "sex")
    assert [group.name for group in by_sex.groups] == ["F", "M"]
    precision = asked.observed.scores.values[:, asked.observed.scores.names.index("P@5")]
    women = np.array([one.sex == "F" for one in study.attributes])
    figure = by_sex.groups[0].figure("P@5")
    assert figure is not None
    assert figure.value == pytest.approx(precision[women].mean())
    gap = next(gap for gap in by_sex.gaps if gap.figure == "P@5")
    assert (gap.highest, gap.lowest) == ("F", "M")  # men's vectors tell less
    assert gap.difference == pytest.approx(precision[women].mean() - precision[~women].mean())
    assert 0 < gap.low < gap.difference < gap.high
    weights = np.concatenate(list(Draws.of(asked.patients, 0, 200).weights(np.arange(len(study)))))
    drawn = [
        (row[women] @ precision[women]) / row[women].sum() - (row[~women] @ precision[~women]) / row[~women].sum()
        for row in weights
    ]
    assert (gap.low, gap.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    by_scanner = next(one for one in done.fairness if one.attribute == "scanner")
    assert (by_scanner.groups, by_scanner.unknown) == ((), len(study))
    few = replace(
        study,
        attributes=tuple(
            replace(one, manufacturer="ACME" if row < 12 else "Other") for row, one in enumerate(study.attributes)
        ),
    )
    small = next(one for one in appraise(few, resamples=20).fairness if one.attribute == "scanner")
    assert [(one.name, one.cases, one.patients) for one in small.small] == [("ACME", 12, 6)]
    assert not small.gaps


def test_few_cases_are_no_gap_in_calibration() -> None:
    """Every probability is right for everyone: the smaller group shows the greater error, and is not worse for it."""
    generator, beyond = np.random.default_rng(8), 0
    group = (np.arange(500) >= 60).astype(np.int64)
    for _ in range(20):
        right = generator.beta(1, 6, (500, 4))
        error = CalibrationError("ECE", right, generator.random((500, 4)) < right)
        draws = Draws.of(np.arange(500), 0, 200)
        found = by_group(Grouping("size", ("small", "large"), group), [error], [], np.arange(500), draws)
        small, large = (one.figures[0].value for one in found.groups)
        assert small > large
        beyond += found.gaps[0].low > 0
    assert beyond <= 3


def test_a_gap_in_calibration_is_seen() -> None:
    generator = np.random.default_rng(9)
    group = (np.arange(600) >= 150).astype(np.int64)
    right = generator.beta(2, 4, (600, 4))
    said = np.where(group[:, None] == 0, np.minimum(right + 0.25, 1.0), right)
    error = CalibrationError("ECE", said, generator.random((600, 4)) < right)
    gap = by_group(
        Grouping("size", ("small", "large"), group), [error], [], np.arange(600), Draws.of(np.arange(600), 0, 200)
    ).gaps[0]
    assert (gap.highest, gap.lowest) == ("small", "large")
    assert gap.low > 0.1 and gap.difference == pytest.approx(0.25, abs=0.06)


def test_ages_fall_into_bands() -> None:
    assert [age_group(years) for years in (None, 0, 17.9, 18, 64, 65, 80, 120)] == [
        "", "0 to 17", "0 to 17", "18 to 39", "40 to 64", "65 to 79", "80 and over", "80 and over",
    ]  # fmt: skip
    found = {one.attribute: one.names for one in groupings([Attributes(age=70), Attributes(age=3), Attributes()])}
    assert found == {"sex": (), "age": ("0 to 17", "65 to 79"), "site": (), "scanner": ()}


def test_confusions_by_hand() -> None:
    members = np.array([[True, False], [True, False], [False, True]])
    votes = np.array([[0.2, 0.8], [0.4, 0.6], [0.1, 0.9]])
    near, similarities = np.array([[2, 1], [2, -1], [0, 1]]), np.array([[0.9, 0.8], [0.7, -np.inf], [0.5, 0.4]])
    (one,) = confusions(("a", "b"), members, votes, near, similarities, np.arange(3))
    assert (one.has, one.voted, one.cases, one.of) == ("a", "b", 2, 2)
    assert [(example.query, example.neighbours) for example in one.examples] == [(0, (2, 1)), (1, (2,))]


def test_duplicates_and_contradictions_are_found(study: Subjects) -> None:
    copied = study.vectors.copy()
    copied[[10, 20]] = copied[[100, 200]]
    other = next(value for value in VALUES if value not in study.values[100])
    values = tuple(
        (other,) if row == 10 else study.values[200] if row == 20 else one for row, one in enumerate(study.values)
    )
    noise = np.random.default_rng(0).random((len(study), 32, 32)).astype(np.float32) * 255
    noise[10], noise[20] = noise[100] + 1, noise[200] + 60  # one is the same picture, one is not
    seen = appraise(replace(study, vectors=copied, values=values), resamples=20, picture=lambda row: noise[row]).doubles
    assert [(one.first, one.second, one.conflicting) for one in seen] == [(10, 100, True)]
    assert seen[0].grey_levels == pytest.approx(1.0)
    blind = appraise(replace(study, vectors=copied, values=values), resamples=20).doubles
    assert {(one.first, one.second) for one in blind} == {(10, 100), (20, 200)}  # by vectors alone
    hashed = tuple("same" if row in {20, 200} else str(row) for row in range(len(study)))
    named = appraise(
        replace(study, vectors=copied, values=values, pixels=hashed), resamples=20, picture=lambda row: noise[row]
    )
    assert [one.same_pixels for one in named.doubles if one.first == 20] == [True]


def test_a_better_encoder_is_shown_to_be_better(study: Subjects) -> None:
    better = subjects(noise=0.4)
    shuffled = better.only(list(range(len(better)))[::-1][:-20])  # another order, twenty cases fewer
    found = compare(study, shuffled, "other", "print", resamples=200)
    assert (found.shared, found.only_this) == (len(study) - 20, 20)
    precision = next(one for one in found.differences if one.name == "P@5")
    assert precision.difference == pytest.approx(precision.other.value - precision.this.value)
    assert 0 < precision.low < precision.difference < precision.high
    assert precision.told == "the other is higher"
    same = compare(study, study, "other", "print", resamples=50)
    assert {one.told for one in same.differences} == {"no difference shown"}
    json.dumps(found.to_json(), allow_nan=False)
    with pytest.raises(UsageError, match="share 5 of the 240 cases"):
        compare(study, better.only(range(5)), "other", "print")


def test_cases_are_matched_by_content_then_by_id(study: Subjects) -> None:
    renamed = replace(study, case_ids=tuple(f"other-{row}" for row in range(len(study))))
    assert matched(study, renamed) == [(row, row) for row in range(len(study))]
    without = replace(study, content=())
    assert matched(without, renamed) == []
    assert matched(without, study.only([7, 5])) == [(5, 1), (7, 0)]


def test_a_sample_is_asked_where_there_are_very_many() -> None:
    assert len(observation.sampled(10_000, 0)) == 10_000
    many = observation.sampled(50_000, 0)
    assert len(many) == observation.MAX_CELLS // 50_000
    assert len(np.unique(many)) == len(many)
    assert len(observation.sampled(10**9, 0)) == observation.MIN_QUERIES


def test_a_sample_is_asked_against_all_cases(study: Subjects, asked: Answered) -> None:
    part = answered(study, (1, 5, 10), 0, most=150)
    rows = part.observed.queries
    assert len(rows) == 150
    assert np.array_equal(part.observed.scores.values, asked.observed.scores.values[rows], equal_nan=True)
    assert part.observed.rarer == pytest.approx(asked.observed.rarer[rows], nan_ok=True)
    done = appraise(study, resamples=20, most=150)
    assert (done.asked, done.report.cases) == (150, 240)
    assert "A random sample of 150 of the 240 cases was asked" in done.notes[-1]


def test_bounds() -> None:
    figures = {"P@5": 0.6, "ECE": 0.04, "AUC[a=b]": 0.9, "AUC": float("nan")}
    assert Gate.parse("AUC[a=b]=0.8") == Gate("AUC[a=b]", 0.8)
    assert broken_gates([Gate("P@5", 0.6), Gate("ECE", 0.05), Gate("AUC[a=b]", 0.9)], figures) == ()
    broken = broken_gates([Gate("P@5", 0.61), Gate("ECE", 0.03), Gate("AUC", 0.5)], figures)
    assert broken[0] == "P@5 is 0.6000, below the 0.61 asked for."
    assert broken[1] == "ECE is 0.0400, above the 0.03 allowed."
    assert "could not be measured" in broken[2]
    for text in ("P@5", "=0.5", "P@5=much", "P@5=nan"):
        with pytest.raises(UsageError, match="Expected a figure and its bound"):
            Gate.parse(text)
    with pytest.raises(UsageError, match="There is no figure 'F1'; there are: P@5, ECE"):
        broken_gates([Gate("F1", 0.5)], figures)


def test_averages_and_areas_of_too_few_have_no_figure() -> None:
    truth = np.arange(30) < 9
    area = Area("AUC[x]", np.linspace(1, 0, 30), truth)
    everyone = np.ones(30, dtype=bool)
    draws = Draws.of(np.arange(30), 0, 10)
    assert np.isnan(taken(area, draws, everyone).value)
    assert np.isnan(Average("AUC", [area]).value(everyone))
    assert Average("both", [Mean("a", np.ones(30)), Mean("b", np.zeros(30))]).value(everyone) == 0.5


def test_one_patient_too_few_values_or_none_at_all(study: Subjects) -> None:
    few = study.only(range(12))
    done = appraise(few, resamples=20)
    assert (done.values, done.calibration, done.ways) == ((), None, ())
    assert np.isnan(done.auc.value)
    json.dumps(done.to_json(), allow_nan=False)
    with pytest.raises(UsageError, match="Expected a value of the label for every case"):
        appraise(replace(few, values=((),) * 12))
