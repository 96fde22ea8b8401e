"""What changed lately: figures against hand-computed ones, planted shifts found, false alarms counted over seeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import UsageError
from retrieval.evidence.drift import (
    ALARM,
    FEW,
    Change,
    fence,
    holm,
    kinds_change,
    numbers_change,
    stability_index,
    verdict,
)  # fmt: skip
from retrieval.evidence.drift_report import QUERIES, drift
from retrieval.gallery import Gallery
from retrieval.types import Attributes, Case, CaseKind, EmbeddedCase, Embedding
from tests.studies import open_gallery
from tests.test_cli import precedent


def test_chi_squared_by_hand() -> None:
    found = kinds_change("sex", ["F"] * 30 + ["M"] * 10, ["F"] * 20 + ["M"] * 20)
    assert found is not None
    # expected 25 and 15 on both sides: 4 * 25 / 25 ... = 25/25 + 25/15 + 25/25 + 25/15
    assert found.statistic == pytest.approx(2 * (25 / 25 + 25 / 15))
    assert found.p_value == pytest.approx(0.020921, abs=1e-6)  # chi-squared 5.3333, one degree
    assert (found.values[0].value, found.values[0].before, found.values[0].lately) == ("F", 0.75, 0.5)


def test_rare_values_are_taken_together_and_unknown_is_a_value() -> None:
    before = ["CT"] * 50 + ["MR"] * 50 + ["XA", "NM"]
    lately = ["CT"] * 20 + [""] * 30 + ["RF"]
    found = kinds_change("modality", before, lately)
    assert found is not None
    assert {each.value for each in found.values} <= {"CT", "MR", "unknown", "all others"}
    assert kinds_change("modality", before[: FEW - 1], lately) is None
    assert kinds_change("modality", ["CT"] * 50, ["CT"] * 50) is None


def test_kolmogorov_smirnov_by_hand() -> None:
    before, lately = np.arange(40.0), np.arange(40.0) + 10
    found = numbers_change("age", before, lately)
    assert found is not None and found.statistic == pytest.approx(10 / 40)
    assert found.medians == (19.5, 29.5)
    assert numbers_change("age", before[:5], lately) is None


def test_stability_index_by_hand() -> None:
    p, q = np.array([30.5, 10.5]) / 41, np.array([20.5, 20.5]) / 41
    assert stability_index([30, 10], [20, 20]) == pytest.approx(float(np.sum((q - p) * np.log(q / p))))
    assert stability_index([5, 5], [50, 50]) == pytest.approx(0.0)
    assert stability_index([0, 10], [10, 0]) < np.inf


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == [True, False, False]  # 0.05/3, then 0.03 > 0.05/2 stops
    assert holm([0.01, 0.02, 0.03]) == [True, True, True]
    assert holm([]) == [] and holm([0.06]) == [False]


def test_the_outer_fence() -> None:
    values = np.array([*np.linspace(0.8, 0.9, 40), 0.1])
    low, high = np.quantile(values, [0.25, 0.75])
    assert fence(values) == pytest.approx(low - 3 * (high - low)) and 0.1 < fence(values) < 0.8
    assert fence(values[:5]) == -np.inf


def test_verdicts() -> None:
    calm = Change("age", "Kolmogorov-Smirnov", 100, 50, 0.1, 0.8, 0.02, medians=(50.0, 51.0))
    assert verdict([calm], 100, 50) == "No drift found in 1 comparisons of 50 patients lately with 100 before."
    moved = Change("age", "Kolmogorov-Smirnov", 100, 50, 0.6, 1e-9, 0.9, True, medians=(50.0, 71.0))
    assert verdict([calm, moved], 100, 50) == "What was added lately differs: age, a lot (median 50, now 71)."
    assert "Too few patients to tell: 100 before and 3 lately" in verdict([], 100, 3)


def test_false_alarms_are_within_what_is_promised() -> None:
    alarms, rounds = 0, 300
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        sides = [
            (rng.choice(["CT", "MR", "US"], size), rng.choice(["F", "M", ""], size), rng.normal(60, 12, size))
            for size in (300, 60)
        ]
        found = [kinds_change("modality", sides[0][0].tolist(), sides[1][0].tolist())]
        found += [kinds_change("sex", sides[0][1].tolist(), sides[1][1].tolist())]
        found += [numbers_change("age", sides[0][2], sides[1][2])]
        alarms += any(holm([change.p_value for change in found if change is not None]))
    assert alarms / rounds <= ALARM + 3 * np.sqrt(ALARM * (1 - ALARM) / rounds)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def add(gallery: Gallery, count: int, seed: int, *, apart: float = 0.0, sex: str = "FM", month: int = 1) -> list[str]:
    """Cases around one centre, of two patients in three of whom one has two; ``apart``: how far off the centre."""
    dim = gallery.encoder.card.dim
    centre, other = unit(np.random.default_rng(1).normal(size=(2, dim)))
    directions = unit(np.random.default_rng(2).normal(size=(8, dim)))
    rng = np.random.default_rng(seed)
    rows = unit(centre + apart * other + 0.9 * unit(rng.normal(size=(count, 8)) @ directions))
    cases = [
        EmbeddedCase(
            Case(
                f"{seed}-{n:04d}", CaseKind.IMAGE, content_sha256=f"{seed}-{n}", pixel_sha256=f"{seed}-{n}",
                patient_key=f"patient {seed} {n * 2 // 3}", created_at=f"2026-{month:02d}-01T00:00:00+00:00",
                attributes=Attributes(modality="CT", sex=str(rng.choice(list(sex))), age=float(rng.integers(20, 90))),
            ),
            Embedding(row, row[None, :], (0,)),
        )
        for n, row in enumerate(rows)
    ]  # fmt: skip
    gallery.add(cases)
    return [each.case.case_id for each in cases]


def test_no_shift_no_alarm(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        add(gallery, 240, 1)
        add(gallery, 120, 2, month=2)
        report = drift(gallery, since="2026-02-01")
        assert (report.before, report.lately, report.drifted) == (240, 120, False)
        assert report.verdict.startswith("No drift found in 3 comparisons of 80 patients lately with 160 before")
        assert {change.name for change in report.changes} == {"sex", "age", "nearest similarity"}
        assert [(month.month, month.cases) for month in report.months] == [("2026-01", 240), ("2026-02", 120)]
        assert QUERIES in report.notes and not report.twins
        assert drift(gallery, last=120) == report
        assert drift(gallery).lately == 36


def test_planted_shifts_are_found(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        add(gallery, 240, 1)
        add(gallery, 120, 2, apart=0.6, sex="FFFFM", month=2)
        report = drift(gallery, last=120)
        assert {change.name for change in report.changes if change.drifted} == {"sex", "nearest similarity"}
        nearest = next(change for change in report.changes if change.name == "nearest similarity")
        assert nearest.medians is not None and nearest.medians[1] < nearest.medians[0] and nearest.stability > 0.25
        assert "nearest similarity, a lot" in report.verdict and "age" not in report.verdict


def test_nearest_similarities_are_those_of_numpy(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        add(gallery, 90, 1)
        add(gallery, 60, 2)
        report = drift(gallery, last=60)
        rows = np.concatenate([vectors for _, vectors in gallery.catalog.vectors(0)])
        patients = np.array([n * 2 // 3 for n in range(90)])
        old = [rows[n] @ rows[:90][patients != patients[n]].T for n in range(90)]
        first = [max(old[n]) for n in range(90) if n == 0 or patients[n] != patients[n - 1]]
        new = [max(rows[90 + n] @ rows[:90].T) for n in range(60) if n == 0 or n * 2 // 3 != (n - 1) * 2 // 3]
        found = next(change for change in report.changes if change.name == "nearest similarity")
        assert found.medians == pytest.approx((np.median(first), np.median(new)), abs=1e-6)


def test_outliers_and_copies_are_listed(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        add(gallery, 100, 1)
        dim = gallery.encoder.card.dim
        far = unit(np.random.default_rng(9).normal(size=dim))
        copied = gallery.query_of("1-0007").embedding.vector
        gallery.add(
            [
                EmbeddedCase(
                    Case(name, CaseKind.IMAGE, content_sha256=name, pixel_sha256=name, patient_key=name,
                         attributes=Attributes(modality="CT")),
                    Embedding(row, row[None, :], (0,)),
                )
                for name, row in (("stranger", far), ("copy", copied))
            ]
        )  # fmt: skip
        report = drift(gallery, last=2)
        assert [each.case_id for each in report.alone] == ["stranger"]
        assert [(each.case_id, each.other_case_id) for each in report.twins] == [("1-0007", "copy")]
        assert report.verdict.startswith("Too few patients to tell") and not report.drifted


def test_nothing_to_compare_is_refused(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        with pytest.raises(UsageError, match="0 cases before"):
            drift(gallery)
        add(gallery, 10, 1)
        for wrong in ({"since": "2030-01-01"}, {"last": 10}, {"since": "2026-01-01", "last": 3}):
            with pytest.raises(UsageError, match=r"Nothing to compare|got both"):
                drift(gallery, **wrong)  # type: ignore[arg-type]


def test_the_command(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        add(gallery, 60, 1)
        add(gallery, 40, 2, apart=0.6, month=2)
    told = json.loads(precedent("drift", "--since", "2026-02-01", "--json", home=tmp_path).stdout)
    assert told["drifted"] and (told["before"], told["lately"]) == (60, 40)
    text = precedent("drift", "--last", 40, home=tmp_path).stdout
    assert told["verdict"] in text and "2026-02" in text and QUERIES in text
    assert "got both" in precedent("drift", "--last", 3, "--since", "2026-02-01", home=tmp_path, code=2).stderr
