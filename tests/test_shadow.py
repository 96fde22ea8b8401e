"""The shadow report and its gates: figures recomputed in a few lines of NumPy, on both databases."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from retrieval.adapters.head import MetricHead
from retrieval.catalog import Catalog
from retrieval.errors import UsageError
from retrieval.generations import generations_folder
from retrieval.publish import publish, publish_compared, rollback
from retrieval.shadow_figures import Gates, Neighbours, overlap, rank_correlation, recall
from retrieval.types import EmbeddedCase, Embedding, Label, UnitRows
from tests.databases import DIM, FINGERPRINT, embedded, unit_rows

CASES = 260  # a sample of them asks
HEAD = np.diag(np.linspace(0.2, 3, DIM)).astype(np.float32)


def fill(catalog: Catalog, count: int = CASES) -> tuple[UnitRows, list[str], list[str]]:
    """Vectors, patients and findings of ``count`` cases, by key."""
    rows = unit_rows(count, seed=5)
    patients = [f"p{n // 3}" for n in range(count)]
    findings = ["nodule" if row[-1] > 0 else "clear" for row in rows]
    cases = []
    for n, (row, patient, finding) in enumerate(zip(rows, patients, findings, strict=True)):
        labels = (Label("finding", finding), *((Label("rare", str(n % 2)),) if n < 5 else ()))
        base = embedded(f"case-{n:04d}", patient_key=patient, labels=labels)
        cases.append(EmbeddedCase(base.case, Embedding(row, row[None, :], (0,)), base.files))
    catalog.commit(cases, fingerprint=FINGERPRINT)
    return rows, patients, findings


def adapter(catalog: Catalog) -> str:
    head = MetricHead("linear", FINGERPRINT, {"weight": HEAD, "bias": np.zeros(DIM, np.float32)})
    catalog.save_adapter("stretched", head, "finding", "{}")
    return head.sha256


def ranked(vectors: UnitRows, patients: list[str]) -> np.ndarray:
    similarities = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    similarities[np.equal.outer(patients, patients)] = -np.inf
    return np.argsort(-similarities, axis=1)[:, :10]


def directories(home: Path) -> list[str]:
    return sorted(path.name for path in generations_folder(home).iterdir() if path.name != ".lock")


def test_the_figures_are_those_of_numpy(catalog: Catalog, tmp_path: Path) -> None:
    rows, patients, findings = fill(catalog)
    live = publish(catalog, tmp_path, "exact")
    done = publish_compared(catalog, tmp_path, "faiss", adapter=adapter(catalog))
    stretched = rows @ HEAD.T
    stretched /= np.linalg.norm(stretched, axis=1, keepdims=True)

    asked = np.sort(np.random.default_rng(0).choice(np.arange(1, CASES + 1), 200, replace=False)) - 1
    old, new = ranked(rows, patients)[asked], ranked(stretched, patients)[asked]
    shares, orders = [], []
    for ours, theirs in zip(old.tolist(), new.tolist(), strict=True):
        both = [key for key in ours if key in theirs]
        shares.append(len(both) / 10)
        if len(both) > 1:
            orders.append(
                np.corrcoef(np.arange(len(both)), np.argsort(np.argsort([theirs.index(k) for k in both])))[0, 1]
            )
    values = np.array(findings)
    report = done.report
    assert done.live and not done.refusal
    assert (report.queries, report.k) == (200, 10)
    assert report.overlap == pytest.approx(np.mean(shares), abs=1e-9)
    assert 0.2 < np.mean(shares) < 0.95
    assert report.rank_correlation == pytest.approx(np.mean(orders), abs=1e-9)
    (change,) = report.labels  # of "rare" there are too few
    assert (change.label, change.queries) == ("finding", 200)
    assert change.old == pytest.approx((values[old] == values[asked, None]).mean(), abs=1e-9)
    assert change.new == pytest.approx((values[new] == values[asked, None]).mean(), abs=1e-9)
    assert change.low <= change.new - change.old <= change.high
    assert (report.old.recall, report.new.recall) == (1.0, 1.0)
    assert (report.old.generation, report.new.generation) == (live.name, done.manifest.name)
    assert report.old.fingerprint != report.new.fingerprint
    for side in (report.old, report.new):
        assert side.p50_ms is not None and side.p99_ms is not None and 0 < side.p50_ms <= side.p99_ms


def test_the_report_is_kept_with_the_generation(catalog: Catalog, tmp_path: Path) -> None:
    fill(catalog, 30)
    first = publish_compared(catalog, tmp_path, "exact")
    second = publish_compared(catalog, tmp_path, "exact")
    assert (first.report.old.generation, first.report.old.p50_ms, first.report.overlap) == ("", None, 1.0)
    assert second.report.overlap == second.report.rank_correlation == 1.0
    kept = [json.loads(row.report_json) for row in catalog.generations()]
    assert kept == [json.loads(json.dumps(each.report.to_json())) for each in (first, second)]


def test_a_dry_run_leaves_no_trace(catalog: Catalog, tmp_path: Path) -> None:
    fill(catalog, 30)
    publish(catalog, tmp_path, "exact")
    before = (catalog.heads(), catalog.generations(), directories(tmp_path))
    done = publish_compared(catalog, tmp_path, "faiss", dry_run=True)
    assert not done.live and done.report.overlap == 1.0
    assert (catalog.heads(), catalog.generations(), directories(tmp_path)) == before


@pytest.mark.parametrize(
    ("gates", "reason"),
    [
        (Gates(min_overlap=0.99), r"first 10 hits: 0\.\d+; at least 0\.99 was asked for"),
        (Gates(max_loss=0.0), r"P@10 of the label 'finding' falls from 0\.\d+ to 0\.\d+"),
    ],
)
def test_a_gate_keeps_the_live_generation(catalog: Catalog, tmp_path: Path, gates: Gates, reason: str) -> None:
    fill(catalog)
    weak = np.eye(DIM, dtype=np.float32)
    weak[-1, -1] = 0.01  # forgets the finding
    head = MetricHead("linear", FINGERPRINT, {"weight": weak, "bias": np.zeros(DIM, np.float32)})
    catalog.save_adapter("weak", head, "finding", "{}")
    live = publish(catalog, tmp_path, "exact")
    done = publish_compared(catalog, tmp_path, "exact", adapter=head.sha256, gates=gates)
    assert not done.live
    assert re.search(reason, done.refusal)
    assert catalog.heads().generation == live.name
    assert directories(tmp_path) == [live.name]


def test_what_was_written_meanwhile_is_on_both_sides(catalog: Catalog, tmp_path: Path) -> None:
    """A live generation with a delta and deleted cases is compared as it is searched."""
    fill(catalog, 200)
    publish(catalog, tmp_path, "exact")
    rows = unit_rows(60, seed=9)
    more = [embedded(f"later-{n:04d}", patient_key=f"q{n}") for n in range(60)]
    catalog.commit(
        [EmbeddedCase(e.case, Embedding(r, r[None, :], (0,)), e.files) for e, r in zip(more, rows, strict=True)],
        fingerprint=FINGERPRINT,
    )
    catalog.delete([f"case-{n:04d}" for n in range(40)])
    report = publish_compared(catalog, tmp_path, "faiss", gates=Gates(1.0, 1.0, 0.0)).report
    assert (report.overlap, report.rank_correlation, report.old.recall, report.new.recall) == (1.0, 1.0, 1.0, 1.0)
    assert rollback(catalog, tmp_path).state == "live"


def test_a_gallery_of_one_case_has_nothing_to_compare(catalog: Catalog, tmp_path: Path) -> None:
    fill(catalog, 1)
    done = publish_compared(catalog, tmp_path, "exact")
    assert done.live
    assert (done.report.overlap, done.report.rank_correlation, done.report.new.recall) == (None, None, None)
    refused = publish_compared(catalog, tmp_path, "exact", gates=Gates(min_overlap=0.5))
    assert "nothing that can be measured" in refused.refusal


def test_figures_of_answers_with_gaps() -> None:
    old = np.array([[1, 2, 3, 4], [1, 2, -1, -1], [-1, -1, -1, -1]])
    new = np.array([[4, 3, 9, 8], [2, 1, 7, -1], [-1, -1, -1, -1]])
    assert overlap(old, new) == pytest.approx((2 / 4 + 2 / 3) / 2)
    assert rank_correlation(old, new) == pytest.approx(-1)
    assert rank_correlation(old, new[:, ::-1] * 0 - 1) is None
    exact = Neighbours(
        np.array([[1, 2, 3], [5, -1, -1]]), np.array([[0.9, 0.8, 0.7], [0.3, -np.inf, -np.inf]], np.float32)
    )
    found = Neighbours(np.array([[1, 7, 3], [-1, -1, -1]]), np.array([[0.9, 0.7, 0.6], [-np.inf] * 3], np.float32))
    assert recall(found, exact) == pytest.approx((2 / 3 + 0) / 2)  # 7 is as near as 3 is said to be; 3 itself is not


def test_a_gate_is_a_share() -> None:
    with pytest.raises(UsageError, match="from 0 to 1 for min-overlap, got 90"):
        Gates(min_overlap=90)
