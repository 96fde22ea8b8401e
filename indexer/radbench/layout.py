"""A folder in the layout of RadFM's test files, as questions.

============ ============================== ==================================================================
task         files                          columns or keys
============ ============================== ==================================================================
modality     ``*modality*.csv``             image_path, answer
diagnosis    ``*balance*.csv``              image_path, disease, label (0 or 1)
diagnosis    other .csv with a label        image_path, label (values separated by ``,``, ``;`` or ``|``)
vqa          ``*vqa*.csv``                  image_path, question, answer; or img_root_dir, Figure_path, Question, Answer
report       ``*caption*.csv``              image_path, label (the report)
report       ``*.json``, a list             npy_path, finding, impression
rationale    the same entries               title (the disease), radiographic_features (sentences), articles
============ ============================== ==================================================================

Paths are relative to the folder (or to img_root_dir within it). Files whose names hold ``train`` are left out.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from retrieval.errors import UsageError


class Task(StrEnum):
    """The five."""

    MODALITY = "modality"
    DIAGNOSIS = "diagnosis"
    VQA = "vqa"
    REPORT = "report"
    RATIONALE = "rationale"


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one image. ``disease``: the one asked about, where the answer is yes or no.

    ``answers``: what is right; several for a case with several diseases. ``diagnosis``: of a rationale, its disease.
    """

    task: Task
    image: Path
    text: str
    answers: tuple[str, ...]
    disease: str = ""
    diagnosis: str = ""


def read_questions(folder: Path) -> tuple[Question, ...]:
    """All questions, in the order of files and lines. UsageError when there are none or a file lacks a column."""
    files = sorted(path for path in folder.glob("*") if path.suffix in {".csv", ".json"} and "train" not in path.name)
    questions = tuple(question for path in files for question in _of_file(folder, path))
    if not questions:
        raise UsageError(
            f"No question in {folder}: expected .csv or .json files in RadBench's layout, see docs/evaluation.md."
        )
    return questions


def _of_file(folder: Path, path: Path) -> Iterator[Question]:
    if path.suffix == ".json":
        yield from _of_articles(folder, path)
        return
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield _of_row(folder, path.name, row)


def _of_row(folder: Path, name: str, row: Mapping[str, str]) -> Question:
    image = folder / _cell(name, row, "img_root_dir", "") / _cell(name, row, "image_path", None, "Figure_path")
    if "modality" in name:
        return Question(Task.MODALITY, image, "Which modality is this?", (_cell(name, row, "answer"),))
    if "vqa" in name:
        text, answer = _cell(name, row, "question", None, "Question"), _cell(name, row, "answer", None, "Answer")
        return Question(Task.VQA, image, text, (answer,))
    label = _cell(name, row, "label")
    if "caption" in name:
        return Question(Task.REPORT, image, "What does the report say?", (label,))
    if "disease" in row:
        disease = row["disease"]
        answer = {"0": "no", "1": "yes"}.get(label, label)
        return Question(Task.DIAGNOSIS, image, f"Is there {disease}?", (answer,), disease=disease)
    values = tuple(part.strip() for part in re.split(r"[,;|]", label) if part.strip())
    return Question(Task.DIAGNOSIS, image, "Which diseases are there?", values)


def _cell(name: str, row: Mapping[str, str], column: str, default: str | None = None, other: str = "") -> str:
    found = row.get(column, row.get(other, default))
    if found is None:
        raise UsageError(f"Expected a column '{column}' in {name}; got: {', '.join(filter(None, row))}.")
    return found.strip()


def _of_articles(folder: Path, path: Path) -> Iterator[Question]:
    entries: Any = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "npy_path" in entry for entry in entries):
        return  # prompts and lists of names lie beside the questions
    for entry in entries:
        image = folder / str(entry["npy_path"])
        report = " ".join(str(entry.get(part) or "") for part in ("finding", "impression")).strip()
        if report:
            yield Question(Task.REPORT, image, "What does the report say?", (report,))
        features = " ".join(map(str, entry.get("radiographic_features") or ()))
        if features:
            title = str(entry.get("title") or "")
            yield Question(Task.RATIONALE, image, "Which disease, and why?", (features,), diagnosis=title)
