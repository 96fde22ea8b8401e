"""Learning an adapter: it helps where it can, says so where it can't, and leaks nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexer.evaluate import evaluate_gallery
from retrieval.adaptation import Lesson, keep, learn_adapter, use
from retrieval.adapters.report import AdaptReport
from retrieval.errors import ConflictError, NotFoundError, UsageError
from retrieval.types import Label
from tests.adapter_cases import cases_of, hidden_label, open_small

QUICK = Lesson("finding", "linear", "supcon")


def measured(report: AdaptReport, name: str) -> tuple[float, float, float]:
    """(before, after, chance) on the test part."""
    pair = next(pair for pair in report.test if pair.before.name == name)
    return pair.before.value, pair.after.value, pair.before.chance


@pytest.mark.parametrize("loss", ["proxy", "supcon"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_label_in_faint_directions_is_found(tmp_path: Path, head: str, loss: str) -> None:
    rows, values = hidden_label(400)
    with open_small(tmp_path) as gallery:
        gallery.add(cases_of(rows, values))
        report = learn_adapter(gallery, Lesson("finding", head, loss)).report
        before, after, chance = measured(report, "P@5")
        assert after > before + 0.15 and after > chance + 0.3
        assert report.worth_using and report.test_gain.low > 0
        assert report.fingerprint_before == gallery.fingerprint != report.fingerprint_after
        assert [size.cases for size in report.parts] == pytest.approx([240, 80, 80], abs=8)
        assert gallery.catalog.adapters() == [] and gallery.catalog.generations() == []  # learning writes nothing


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shuffled_labels_gain_nothing_over_chance(tmp_path: Path, seed: int) -> None:
    rows, values = hidden_label(400, seed=seed)
    of_patients = np.random.default_rng(seed).permutation(values[::2])
    with open_small(tmp_path) as gallery:
        gallery.add(cases_of(rows, [str(value) for value in np.repeat(of_patients, 2)]))
        report = learn_adapter(gallery, Lesson("finding", seed=seed)).report
        _, after, chance = measured(report, "P@5")
        assert not report.improves and not report.worth_using
        assert abs(after - chance) < 0.08


def test_a_patient_in_two_parts_would_have_been_seen(tmp_path: Path) -> None:
    """Every patient is a blob and labels mean nothing: whoever mixes patients over the parts finds the blobs again."""
    rng = np.random.default_rng(5)
    centres = np.repeat(rng.standard_normal((60, 24)), 6, axis=0)
    rows = centres + 0.05 * rng.standard_normal(centres.shape)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    values = np.repeat([f"kind {n}" for n in rng.integers(0, 2, 60)], 6)
    cases = cases_of(rows, [str(value) for value in values])
    with open_small(tmp_path) as gallery:
        gallery.add(cases)
        for n, embedded in enumerate(cases):
            gallery.catalog.update(embedded.case.case_id, patient_key=f"blob {n // 6}")
        report = learn_adapter(gallery, QUICK).report
        assert [size.patients for size in report.parts] == pytest.approx([36, 12, 12], abs=2)
        assert not report.improves and measured(report, "P@5")[1] < 0.75


def test_the_same_seed_gives_the_same_head_and_another_seed_another(tmp_path: Path) -> None:
    rows, values = hidden_label(240)
    with open_small(tmp_path) as gallery:
        gallery.add(cases_of(rows, values))
        first, again = learn_adapter(gallery, QUICK), learn_adapter(gallery, QUICK)
        assert first.head.to_bytes() == again.head.to_bytes()
        assert first.report.test == again.report.test and first.report.tried == again.report.tried
        assert learn_adapter(gallery, Lesson("finding", "linear", "supcon", seed=1)).head.sha256 != first.head.sha256
        name = keep(gallery, first)
        assert keep(gallery, again, "another-name") == name and len(gallery.catalog.adapters()) == 1


def test_kept_used_evaluated_and_left_again(database_url: str, tmp_path: Path) -> None:
    rows, values = hidden_label(240)
    with open_small(tmp_path, database_url) as gallery:
        gallery.add(cases_of(rows, values))
        plain = evaluate_gallery(gallery, "finding", ks=(5,))
        learned = learn_adapter(gallery, QUICK)
        name = keep(gallery, learned, "faint")
        assert name == "faint" and gallery.state().fingerprint == gallery.fingerprint and gallery.state().adapter == ""
        assert use(gallery, "faint") is not None and use(gallery, "faint") is None
        state = gallery.state()
        assert (state.adapter, state.fingerprint, state.delta) == ("faint", learned.head.fingerprint, 0)
        adapted = evaluate_gallery(gallery, "finding", ks=(5,))
        assert adapted.fingerprint == learned.head.fingerprint and plain.fingerprint == gallery.fingerprint
        assert adapted.report.measure("P@5").value > plain.report.measure("P@5").value + 0.15
        assert gallery.similar_to("case-00000").fingerprint == learned.head.fingerprint
        use(gallery, "none")
        assert gallery.similar_to("case-00000").fingerprint == gallery.fingerprint
        assert evaluate_gallery(gallery, "finding", ks=(5,)).report.measures == plain.report.measures


def test_cases_without_patients_are_kept_together_by_study(tmp_path: Path) -> None:
    rows, values = hidden_label(240)
    with open_small(tmp_path) as gallery:
        gallery.add(cases_of(rows, values, studies=True))
        report = learn_adapter(gallery, QUICK).report
        assert sum(size.patients for size in report.parts) == 120
        assert any("240 of 240 cases have no patient id" in note for note in report.notes)


def test_a_numeric_label_is_learned_in_bins(tmp_path: Path) -> None:
    rows, values = hidden_label(240, classes=2)
    numbers = np.random.default_rng(0).uniform(0, 10, 240) + np.where(np.array(values) == "kind 0", 0, 20)
    cases = cases_of(rows, values)
    with open_small(tmp_path) as gallery:
        gallery.add(cases)
        for embedded, number in zip(cases, numbers.tolist(), strict=True):
            gallery.catalog.update(embedded.case.case_id, labels=[Label("volume_ml", f"{number:.3f}", number)])
        with pytest.raises(UsageError, match=r"240 distinct values.*--bins 4"):
            learn_adapter(gallery, Lesson("volume_ml"))
        report = learn_adapter(gallery, Lesson("volume_ml", "linear", "supcon", bins=2)).report
        assert len(report.classes) == 2 and report.improves


def test_what_can_not_be_learned_is_told(tmp_path: Path) -> None:
    rows, values = hidden_label(30)
    with open_small(tmp_path) as gallery:
        gallery.add(cases_of(rows, values))
        with pytest.raises(UsageError, match="No case on file has the label 'colour'; labels on file: finding"):
            learn_adapter(gallery, Lesson("colour"))
        with pytest.raises(UsageError, match="at least 2 values of 'finding' with 10 patients each"):
            learn_adapter(gallery, Lesson("finding"))
        with pytest.raises(NotFoundError, match=r"no adapter 'x' in this gallery \(there are none yet\)"):
            use(gallery, "x")


def test_names_are_checked_and_not_taken_twice(tmp_path: Path) -> None:
    rows, values = hidden_label(240)
    with open_small(tmp_path) as gallery:
        gallery.add(cases_of(rows, values))
        one = learn_adapter(gallery, QUICK)
        other = learn_adapter(gallery, Lesson("finding", "linear", "supcon", seed=1))
        for bad in ("none", "a b", "", "-x", "x" * 65):
            if bad:
                with pytest.raises(UsageError, match="Expected an adapter's name"):
                    keep(gallery, one, bad)
        keep(gallery, one, "mine")
        with pytest.raises(ConflictError, match="another adapter 'mine'"):
            keep(gallery, other, "mine")
        assert keep(gallery, other) == f"finding-{other.head.sha256[:6]}"
