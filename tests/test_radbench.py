"""RadBench's five questions: the layout read, answers by retrieval, whole answers, and what may not answer."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from indexer.demo.phantoms import generate
from indexer.labels import LabelTable
from indexer.limits import Limits
from indexer.pipeline import Options, index
from indexer.radbench.answers import Answer, Reference, answer, likeness, plain
from indexer.radbench.images import ask_with
from indexer.radbench.layout import Question, Task, read_questions
from indexer.radbench.run import RadBenchReport, evaluate_radbench
from indexer.radbench.scoring import measured, right
from indexer.sandbox import Sandbox
from retrieval.clinical_terms import vocabulary
from retrieval.errors import UsageError
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import Attributes, Case, CaseKind, Label
from tests.processes import run

ASKED = ("PHANTOM-0001", "PHANTOM-0002", "PHANTOM-0005")  # patients whose images are questions
SEEN = "is something seen"


def write(path: Path, header: str, rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(header.split(","))
        table.writerows(rows)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of phantoms in ``home``, and ``bench`` in RadBench's layout with questions about three of them."""
    place = tmp_path_factory.mktemp("radbench")
    table = generate(place / "scans", size="tiny")
    with table.open(encoding="utf-8", newline="") as file:
        rows = [{**row, SEEN: "no" if row["finding"] == "normal" else "yes"} for row in csv.DictReader(file)]
    with table.open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)
    home = Settings(home=place / "home", workers=1, encoder="classical")
    with Gallery.open(home, create=True) as gallery, Sandbox(1, Limits.of(home)) as sandbox:
        assert index(gallery, sandbox, [table.parent], Options(labels=LabelTable.read(table))).ok
    folder = place / "bench"
    folder.mkdir()
    mine = [row for row in rows if row["patient_id"] in ASKED and row["path"].endswith(".dcm")]
    images = [str(table.parent / row["path"]) for row in mine]
    pairs = list(zip(images, mine, strict=True))
    write(folder / "radio_modality_test.csv", "image_path,answer", [[i, row["modality"]] for i, row in pairs])
    write(folder / "finding_test.csv", "image_path,label", [[i, row["finding"]] for i, row in pairs])
    write(
        folder / "finding_balance_test.csv", "image_path,disease,label",
        [[i, "normal", str(int(row["finding"] == "normal"))] for i, row in pairs],
    )  # fmt: skip
    write(
        folder / "small_vqa_test.csv", "img_root_dir,Figure_path,Question,Answer",
        [["", i, "Is something seen?", row[SEEN]] for i, row in pairs],
    )  # fmt: skip
    write(folder / "small_vqa_train.csv", "image_path,question,answer", [["absent.png", "?", "!"]])
    write(folder / "small_caption_test.csv", "image_path,label", [[i, row["report"]] for i, row in pairs])
    features = [
        {"npy_path": i, "finding": row["report"], "impression": "", "title": row["finding"],
         "radiographic_features": [row["report"]]}
        for i, row in pairs
    ]  # fmt: skip
    (folder / "article_test.json").write_text(json.dumps(features), encoding="utf-8")
    (folder / "prompt.json").write_text('{"caption_prompt": []}', encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def report(bench: Path) -> RadBenchReport:
    home = Settings(home=bench / "home", workers=1)
    with Gallery.open(home) as gallery, Sandbox(1, Limits.of(home)) as sandbox:
        return evaluate_radbench(gallery, sandbox, bench / "bench", "finding")


def test_the_layout_is_read(bench: Path) -> None:
    questions = read_questions(bench / "bench")
    images = len({question.image for question in questions})
    count = {task: sum(question.task is task for question in questions) for task in Task}
    assert count == {
        Task.MODALITY: images, Task.DIAGNOSIS: 2 * images, Task.VQA: images, Task.REPORT: 2 * images,
        Task.RATIONALE: images,
    }  # fmt: skip
    asked = [question for question in questions if question.disease]
    assert {question.answers for question in asked} <= {("yes",), ("no",)}
    assert not any("absent" in str(question.image) for question in questions)  # the training part asks nothing


def test_what_is_no_question_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No question in"):
        read_questions(tmp_path)
    write(tmp_path / "a_vqa_test.csv", "image_path,reply", [["x.png", "yes"]])
    with pytest.raises(UsageError, match="Expected a column 'question' in a_vqa_test"):
        read_questions(tmp_path)


def test_nothing_of_the_questions_patients_answers(bench: Path, report: RadBenchReport) -> None:
    home = Settings(home=bench / "home", workers=1)
    with Gallery.open(home) as gallery:
        cases = gallery.catalog.list_cases(limit=500)
        named = {gallery.secret.patient_key(patient) for patient in ASKED}
    assert report.gallery_size == len(cases)
    assert report.left_out == sum(case.patient_key in named for case in cases)
    assert report.unreadable == 0
    assert [task.task for task in report.tasks] == list(Task)
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["tasks"][0]["scores"][0]["name"] == "accuracy"


def test_the_command_says_the_same(bench: Path, report: RadBenchReport) -> None:
    done = run("evaluate", bench / "bench", "--protocol", "radbench", "--label", "finding", home=bench / "home")
    modality = next(task for task in report.tasks if task.task is Task.MODALITY).scores[0]
    assert f"{modality.value:.3f}" in done.stdout
    assert f"{report.left_out} of the gallery were left out" in done.stdout
    assert modality.value > modality.random_case
    assert (
        "nothing else" in run("evaluate", bench, "--protocol", "radbench", "--where", "a=b", home=bench, code=2).stderr
    )


def case(number: int, modality: str = "CT", report: str = "", **labels: str) -> Case:
    said = tuple(Label(name, value) for name, values in labels.items() for value in values.split("|"))
    return Case(f"case-{number}", CaseKind.IMAGE, Attributes(modality=modality), said, report)


def question(task: Task, *answers: str, text: str = "", disease: str = "", diagnosis: str = "") -> Question:
    return Question(task, Path("x"), text, answers, disease, diagnosis)


NEIGHBOURS = [
    case(1, "MR", label="a|b", fracture_seen="no"),
    case(2, "CT", "No effusion.", label="b", fracture_seen="yes", side="left"),
    case(3, "CT", "Effusion.", label="c", fracture_seen="yes"),
]


def test_votes_by_hand() -> None:
    reference = Reference("label", {"a": 0.2, "b": 0.9, "c": 0.1})
    assert answer(question(Task.MODALITY), NEIGHBOURS, reference) == Answer(("CT",), ("case-2", "case-3"))
    several = answer(question(Task.DIAGNOSIS), NEIGHBOURS, reference)
    assert several == Answer(("b",), ("case-1", "case-2"))
    rare = answer(question(Task.DIAGNOSIS, disease="C"), NEIGHBOURS, reference)
    assert rare == Answer(("yes",), ("case-3",))  # one in three, one in ten on file
    common = answer(question(Task.DIAGNOSIS, disease="b"), NEIGHBOURS, reference)
    assert common.texts == ("no",)  # two in three, nine in ten on file
    seen = answer(question(Task.VQA, text="Is a fracture seen?"), NEIGHBOURS, reference)
    assert seen == Answer(("yes",), ("case-2", "case-3"))
    assert answer(question(Task.VQA, text="When?"), NEIGHBOURS, reference) == Answer((), ())
    told = answer(question(Task.RATIONALE), NEIGHBOURS, reference)
    assert told == Answer(("No effusion.",), ("case-2", "case-1"), "b")
    assert answer(question(Task.REPORT), [NEIGHBOURS[0]], reference).texts == ()


def test_a_modality_has_several_names() -> None:
    reference = Reference("label", {})
    films = [case(1, "CT"), case(2, "CT"), case(3, "DX"), case(4, "CR"), case(5, "X-ray"), case(6, "")]
    said = answer(question(Task.MODALITY), films, reference)
    assert said == Answer(("DX",), ("case-3", "case-4", "case-5"))
    assert right(question(Task.MODALITY, "X-ray."), said)
    assert right(question(Task.MODALITY, "MRI"), Answer(("MR",), ()))
    assert not right(question(Task.MODALITY, "CT"), said)
    assert answer(question(Task.MODALITY), [films[-1]], reference) == Answer((), ())


def test_base_rates_of_a_sample() -> None:
    assert Reference.of(NEIGHBOURS, "label").rates == {"a": 1 / 3, "b": 2 / 3, "c": 1 / 3}
    assert likeness("Is a fracture seen?", "fracture_seen") == 2 / 4


def test_an_answer_is_right_as_a_whole() -> None:
    assert plain("Not_infected!") == "not infected"
    assert not right(question(Task.VQA, "not_infected"), Answer(("infected",), ()))
    assert right(question(Task.VQA, "not infected."), Answer(("Not_Infected",), ()))
    assert right(question(Task.DIAGNOSIS, "a", "b"), Answer(("b", "a"), ()))
    assert not right(question(Task.DIAGNOSIS, "a", "b"), Answer(("a",), ()))
    assert not right(question(Task.VQA, ""), Answer((), ()))


def test_words_and_statements_of_reports() -> None:
    asked = [question(Task.REPORT, "There is no effusion. Cardiomegaly."), question(Task.REPORT, "Clear lungs.")]
    given = [Answer(("There is an effusion. Cardiomegaly.",), ()), Answer((), ())]
    figures = measured(Task.REPORT, asked, given, vocabulary())
    assert figures["clinical precision"][0] == figures["clinical recall"][0] == 0.5
    assert np.isnan(figures["clinical precision"][1])
    assert figures["ROUGE-1"] == pytest.approx([8 / 10, 0.0])  # four of five words on both sides
    assert figures["ROUGE-L"] == pytest.approx([8 / 10, 0.0])
    by_library = BLEU(lowercase=True, effective_order=True).sentence_score(given[0].texts[0], list(asked[0].answers))
    assert figures["BLEU-4"] == pytest.approx([by_library.score / 100, 0.0])
    one = measured(Task.VQA, [question(Task.VQA, "left upper lobe")], [Answer(("left lower lobe",), ())], vocabulary())
    assert one["BLEU-1"] == pytest.approx([2 / 3])
    assert one["accuracy"].tolist() == [0.0]


def test_arrays_are_read_as_volumes(bench: Path, tmp_path: Path) -> None:
    scan = np.random.default_rng(0).random((2, 3, 48, 40, 8)).astype(np.float32)
    np.save(tmp_path / "scan.npy", scan)
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    home = Settings(home=bench / "home", workers=1)
    with Gallery.open(home) as gallery, Sandbox(1, Limits.of(home)) as sandbox:
        images = [tmp_path / name for name in ("scan.npy", "words.npy", "absent.npy", "absent.png")]
        asked = ask_with(gallery, sandbox, images, lambda: None)
    assert list(asked.read) == [tmp_path / "scan.npy"]
    assert asked.unreadable == 3
    (read,) = asked.read.values()
    assert (read.case.kind, read.case.rows, read.case.columns) == (CaseKind.VOLUME, 48, 40)
