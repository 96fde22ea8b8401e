"""RadBench on a gallery: questions in, answers of the most similar cases out, scored beside chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.asked_rows import PAGE
from indexer.radbench.answers import Answer, Reference, answer
from indexer.radbench.images import Asked, ask_with
from indexer.radbench.layout import Question, Task, read_questions
from indexer.radbench.scoring import Score, scores
from indexer.sandbox import Sandbox
from retrieval.clinical_terms import Terms, vocabulary, with_terms
from retrieval.errors import UsageError
from retrieval.evaluation import without_nan
from retrieval.evidence.neighbours import NOBODY, Batch, Nearest, Numbers, Ties, nearest
from retrieval.gallery import Gallery
from retrieval.space import Space
from retrieval.types import Case, GroupBy, Keys

K = 10  # neighbours that vote
SAMPLE = 2000  # cases of the gallery, drawn at random, that stand for all where chance is measured
RANDOM_DRAWS = 5  # random cases that answer each question


@dataclass(frozen=True, slots=True)
class TaskScores:
    """One of the five. ``unanswered``: questions to which no neighbour had anything to say; they count as wrong."""

    task: Task
    questions: int
    unanswered: int
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class RadBenchReport:
    """``left_out``: cases of the gallery that are images of the questions, or of their patients; no answer rests on
    them. ``unreadable``: images that could not be read; their questions are left out."""

    encoder: str
    fingerprint: str
    gallery_size: int
    left_out: int
    images: int
    unreadable: int
    label: str
    k: int
    seed: int
    tasks: tuple[TaskScores, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; a figure that does not exist is null."""
        plain: dict[str, Any] = without_nan(asdict(self))
        return {"protocol": "radbench"} | plain


def evaluate_radbench(
    gallery: Gallery,
    sandbox: Sandbox,
    folder: Path,
    label: str = "label",
    k: int = K,
    seed: int = 0,
    done: Callable[[], None] = lambda: None,
) -> RadBenchReport:
    """Answer and score all questions of a folder. ``label``: which label of the gallery is the diagnosis.

    Raises ``UsageError`` when there is no question, no image can be read, or the gallery holds nothing else.
    """
    questions = read_questions(folder)
    asked = ask_with(gallery, sandbox, (question.image for question in questions), done)
    if not asked.read:
        raise UsageError(f"None of the {asked.unreadable} images of the questions can be read: are they in {folder}?")
    with gallery.catalog.one_state():
        everything = gallery.catalog.select(None)
        keys = np.setdiff1d(everything, _of_the_questions(gallery, asked))
        if not len(keys):
            raise UsageError(
                "The gallery holds nothing but the questions' own images and patients: nothing can answer."
            )
        neighbours = _neighbours(gallery, asked, keys, k)
        chosen = np.random.default_rng(seed).choice(keys, size=min(SAMPLE, len(keys)), replace=False)
        sample = [case for _, case in sorted(gallery.catalog.cases(np.sort(chosen)).items())]
    kept = [question for question in questions if question.image in asked.read]
    return RadBenchReport(
        encoder=gallery.encoder.card.spec,
        fingerprint=gallery.space().fingerprint,
        gallery_size=len(everything),
        left_out=len(everything) - len(keys),
        images=len(asked.read),
        unreadable=asked.unreadable,
        label=label,
        k=k,
        seed=seed,
        tasks=tuple(_scored(kept, neighbours, sample, label, seed)),
    )


def _scored(
    questions: Sequence[Question],
    neighbours: dict[Path, list[Case]],
    sample: Sequence[Case],
    label: str,
    seed: int,
) -> Iterator[TaskScores]:
    reference = Reference.of(sample, label)
    terms = _terms(sample, label)
    generator = np.random.default_rng(seed)
    for task in Task:
        mine = [question for question in questions if question.task is task]
        if not mine:
            continue
        given = [answer(question, neighbours[question.image], reference) for question in mine]
        majority = [answer(question, sample, reference) for question in mine]
        drawn = [_random(mine, sample, reference, generator) for _ in range(RANDOM_DRAWS)]
        unanswered = sum(not one.texts for one in given)
        yield TaskScores(task, len(mine), unanswered, scores(task, mine, given, majority, drawn, terms, seed))


def _random(
    questions: Sequence[Question], sample: Sequence[Case], reference: Reference, generator: np.random.Generator
) -> list[Answer]:
    """The answer of one random case to each question."""
    places = generator.integers(0, len(sample), len(questions))
    return [answer(question, [sample[place]], reference) for question, place in zip(questions, places, strict=True)]


def _terms(sample: Sequence[Case], label: str) -> Terms:
    """The findings that come with the product, and the values of the diagnosis that are words."""
    values = Counter(
        said.value for case in sample for said in case.labels if said.name == label and said.number is None
    )
    return with_terms(values) | vocabulary()


def _of_the_questions(gallery: Gallery, asked: Asked) -> Keys:
    """Keys of all cases that are an image of a question, share its content or study, or are of its patient."""
    cases = [read.case for read in asked.read.values()]
    ids, contents = {case.case_id for case in cases}, {case.content_sha256 for case in cases} - {""}
    patients, studies = {case.patient_key for case in cases}, {case.study_uid for case in cases} - {""}
    keys: set[int] = set()
    after = 0
    while page := gallery.catalog.list_cases(after_key=after, limit=PAGE):
        for case in page:
            if case.case_id in ids or case.content_sha256 in contents or case.study_uid in studies:
                keys.add(case.key)
                patients.add(case.patient_key)
        after = page[-1].key
    for patient in sorted(patients - {""}):
        keys.update(int(key) for key in gallery.catalog.keys_of_patient(patient))
    return np.array(sorted(keys), dtype=np.int64)


def _neighbours(gallery: Gallery, asked: Asked, keys: Keys, k: int) -> dict[Path, list[Case]]:
    """The k nearest cases of different patients for each image, the most similar first."""
    space = gallery.space()
    queries = space.place(np.stack([read.query.embedding.vector for read in asked.read.values()]))
    found = _nearest(gallery, space, queries, keys, k)
    cases = gallery.catalog.cases(keys[np.unique(found.cases[found.cases != NOBODY])])
    rows = zip(asked.read, found.cases, strict=True)
    return {image: [cases[int(keys[place])] for place in row if place != NOBODY] for image, row in rows}


def _nearest(gallery: Gallery, space: Space, queries: Any, keys: Keys, k: int) -> Nearest:
    patients = gallery.catalog.groups(keys, GroupBy.PATIENT)
    numbers: dict[str, int] = {}
    number = [numbers.setdefault(patient or f"\x00{place}", len(numbers)) for place, patient in enumerate(patients)]
    places = len(keys) + np.arange(len(queries), dtype=np.int64)
    ties = np.concatenate([np.array(number, dtype=np.int64), len(numbers) + np.arange(len(queries), dtype=np.int64)])
    return nearest(places, queries, _batches(gallery, space, keys), Ties(ties, ties), k)


def _batches(gallery: Gallery, space: Space, keys: Keys) -> Iterator[Batch]:
    for stored, rows in gallery.catalog.vectors(0):
        inside = np.isin(stored, keys)
        if inside.any():
            positions: Numbers = np.searchsorted(keys, stored[inside])
            yield positions, space.place(rows[inside])
