"""Evaluating a labels file: from a gallery that holds its rows, or from the files themselves."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.asked_rows import Condition
from indexer.demo.phantoms import generate
from indexer.evaluate import evaluate_gallery, evaluate_table
from indexer.labels import LabelTable
from indexer.limits import Limits
from indexer.pipeline import Options, index
from indexer.sandbox import Sandbox
from retrieval.errors import UsageError
from retrieval.gallery import Gallery
from retrieval.leave_one_out import tied_by_study, unknown_patients
from retrieval.settings import Settings
from retrieval.types import Case, CaseKind, EmbeddedCase, Embedding, Label
from tests.adapter_cases import open_small
from tests.evidence_cases import on_file


def settings(home: Path) -> Settings:
    return Settings(home=home, workers=1)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("phantoms"), size="tiny")


def add(home: Path, table: Path, paths: list[Path]) -> Gallery:
    gallery = Gallery.open(settings(home), create=True)
    with Sandbox(1, Limits.of(gallery.settings)) as sandbox:
        report = index(gallery, sandbox, paths, Options(labels=LabelTable.read(table)))
    assert report.ok
    return gallery


@pytest.mark.slow
def test_a_gallery_and_the_files_themselves_agree(phantoms: Path, tmp_path: Path) -> None:
    from_files = evaluate_table(phantoms, label="organ", where=["modality=DX|MG"], settings=settings(tmp_path / "none"))
    assert from_files.vectors_from == "files"
    assert not (tmp_path / "none").exists()
    with add(tmp_path / "home", phantoms, [phantoms.parent]) as gallery:
        held = evaluate_table(phantoms, label="organ", where=["modality=DX|MG"], gallery=gallery)
        assert held.vectors_from == "gallery"
        assert held.report == from_files.report
        everything = evaluate_table(phantoms, label="organ", gallery=gallery).report
        own = evaluate_gallery(gallery, "organ").report  # in the order of its keys, so other bootstrap draws
        assert [m.value for m in own.measures] == pytest.approx([m.value for m in everything.measures], abs=1e-9)
    with phantoms.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert everything.cases == len(rows)
    assert everything.patients == len({row["patient_id"] for row in rows})
    assert held.report.cases == sum(row["modality"] in {"DX", "MG"} for row in rows)
    assert held.report.measure("P@1").value > held.report.measure("P@1").chance + 0.3


def test_several_sources_bring_the_origin_oracle(phantoms: Path, tmp_path: Path) -> None:
    rows = ["path,patient_id,source,label"]
    for place in sorted(phantoms.parent.glob("*/study-1/dx-1.dcm")):
        patient = place.parts[-3]
        rows.append(f"{place},{patient},{'one' if patient < 'PHANTOM-0003' else 'two'},x")
    rows = [line.replace(",one,x", ",one,y") for line in rows]
    (tmp_path / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    report = evaluate_table(tmp_path / "labels.csv", settings=settings(tmp_path / "none"), ks=(1,)).report
    assert report.measure("P@1").origin == 1.0  # here the label is the source


def test_a_gallery_that_lacks_rows_is_not_used(phantoms: Path, tmp_path: Path) -> None:
    with add(tmp_path / "home", phantoms, [phantoms.parent / "PHANTOM-0001"]) as gallery:
        size = len(gallery)
        evaluation = evaluate_table(phantoms, label="view", where=["body_part=chest", "modality=DX"], gallery=gallery)
        assert evaluation.vectors_from == "files"
        assert len(gallery) == size


def test_rows_by_uid_are_found_in_a_gallery_only(phantoms: Path, tmp_path: Path) -> None:
    with add(tmp_path / "home", phantoms, [phantoms.parent]) as gallery:
        studies = {case.study_uid: case.attributes.body_part for case in gallery.catalog.list_cases(limit=500)}
        table = tmp_path / "by_uid.csv"
        lines = [f"{uid},{part}" for uid, part in studies.items() if uid.startswith("2.25.")]
        table.write_text("\n".join(["study_uid,region", *lines]), encoding="utf-8")
        evaluation = evaluate_table(table, label="region", gallery=gallery)
        assert evaluation.vectors_from == "gallery"
        assert evaluation.rows == len(lines)
        assert evaluation.report.cases > len(lines)  # several cases a study
        assert not any("no patient id" in note for note in evaluation.report.notes)  # the headers' ids are used
    with pytest.raises(UsageError, match="name UIDs only"):
        evaluate_table(table, label="region", settings=settings(tmp_path / "none"))


def test_cases_that_came_from_no_file_are_found_by_uid(tmp_path: Path) -> None:
    with Gallery.open(settings(tmp_path / "home"), create=True) as gallery:
        rows = np.random.default_rng(0).normal(size=(8, gallery.encoder.card.dim))
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        cases = [Case(f"case-{n}", CaseKind.IMAGE, study_uid=f"1.2.{n}") for n in range(8)]
        gallery.add([EmbeddedCase(case, Embedding(row, row[None])) for case, row in zip(cases, rows, strict=True)])
        table = tmp_path / "labels.csv"
        table.write_text("study_uid,label\n" + "".join(f"1.2.{n},{'xy'[n % 2]}\n" for n in range(8)))
        found = evaluate_table(table, gallery=gallery)
        assert (found.vectors_from, found.report.cases) == ("gallery", 8)


def test_a_file_that_is_no_image_is_counted(phantoms: Path, tmp_path: Path) -> None:
    rows = ["path,patient_id,label"]
    pictures = sorted(phantoms.parent.glob("*/study-1/dx-1.dcm"))
    rows += [f"{place},{place.parts[-3]},x" for place in pictures]
    (tmp_path / "broken.dcm").write_text("nothing")
    rows.append("broken.dcm,P,x")
    (tmp_path / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    evaluation = evaluate_table(tmp_path / "labels.csv", settings=settings(tmp_path / "none"))
    assert (evaluation.rows, evaluation.rows_without_case) == (len(rows) - 1, 1)
    plain = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert plain["rows_without_case"] == 1
    assert {measure["name"] for measure in plain["measures"]} == {"P@1", "P@5", "P@10", "R@10", "mAP", "nDCG@10"}


@pytest.mark.parametrize(
    ("label", "where", "sentence"),
    [
        ("colour", [], "no column 'colour'"),
        ("organ", ["colour=red"], "no column 'colour'"),
        ("organ", ["view=oblique"], "No row of the table has a value of 'organ' and view=oblique"),
        ("organ", ["split"], "Expected a condition such as split=test"),
    ],
)
def test_what_the_table_does_not_know_is_refused(phantoms: Path, label: str, where: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        evaluate_table(phantoms, label=label, where=where)


def test_conditions() -> None:
    assert Condition.parse(" split = a | b ") == Condition("split", frozenset({"a", "b"}))
    assert str(Condition.parse("view=PA|AP")) == "view=AP|PA"


def test_a_study_is_of_one_patient_also_where_nobody_said_of_whom(tmp_path: Path) -> None:
    """Labels are drawn by study, and say nothing of the pictures: its other pictures would give every answer away."""
    rng = np.random.default_rng(0)
    coins = rng.choice(["heads", "tails"], 60)
    cases = on_file(
        np.repeat(rng.uniform(0, 2 * np.pi, 60), 3), [[Label("coin", str(coins[n // 3]))] for n in range(180)]
    )
    cases = [
        replace(each, case=replace(each.case, patient_key="", study_uid=f"1.2.{n // 3}"))
        for n, each in enumerate(cases)
    ]
    with open_small(tmp_path / "home") as gallery:
        gallery.add(cases)
        report = evaluate_gallery(gallery, "coin").report
    assert report.patients == 60
    assert report.measure("P@1").low < 0.5 < report.measure("P@1").high
    assert "180 of 180 cases have no patient id" in report.notes[0]


def test_what_ties_a_case_whose_patient_is_unknown() -> None:
    tied = tied_by_study(["p1", "", "", "", "", "p2"], ["s1", "s1", "s2", "s2", "", ""])
    assert tied[:2] == ["p1", "p1"] and tied[4:] == ["", "p2"]
    assert tied[2] == tied[3] and tied[2] not in {"p1", "p2", "", "s2"}
    assert unknown_patients(tied) == 3
