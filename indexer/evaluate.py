"""A labels file in, retrieval quality out: the cases its rows name are ranked against one another.

Vectors come from a gallery that holds every row asked for; otherwise the files are embedded into a gallery of their
own, by the ordinary pipeline, which is thrown away afterwards. Without a labels file the labels on file are taken.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.asked_rows import Condition, Found, asked_rows, found_in, values_of
from indexer.events import Listener
from indexer.labels import LabelTable
from indexer.limits import Limits
from indexer.pipeline import Options, index
from indexer.sandbox import Sandbox
from indexer.workers import worker_count
from retrieval.appraisal.subjects import Subjects
from retrieval.encoders import full_spec
from retrieval.errors import UsageError
from retrieval.evaluation import DEFAULT_KS, EvaluationReport, evaluate
from retrieval.filters import Filter
from retrieval.gallery import Gallery
from retrieval.leave_one_out import tied_by_study
from retrieval.settings import Settings
from retrieval.types import Attributes, Case, Keys, UnitRows


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was evaluated, with what, and how it went. ``rows_without_case``: rows asked for that gave no case."""

    label: str
    where: tuple[str, ...]
    encoder: str
    fingerprint: str
    vectors_from: str  # "gallery" or "files"
    rows: int
    rows_without_case: int
    report: EvaluationReport

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: what was evaluated, then the report's figures."""
        names = ("label", "where", "encoder", "fingerprint", "vectors_from", "rows", "rows_without_case")
        facts = {name: getattr(self, name) for name in names}
        return facts | {"where": list(self.where)} | self.report.to_json()


@dataclass(frozen=True, slots=True)
class Material:
    """What an evaluation is made of: an open gallery and those of its cases that are asked about.

    ``rows_without_case``: rows of the labels file that gave no case.
    """

    gallery: Gallery
    subjects: Subjects
    label: str
    where: tuple[str, ...]
    vectors_from: str  # "gallery" or "files"
    rows: int
    rows_without_case: int

    def evaluation(self, report: EvaluationReport) -> Evaluation:
        """What was evaluated, with its report."""
        return Evaluation(
            label=self.label,
            where=self.where,
            encoder=self.gallery.encoder.card.spec,
            fingerprint=self.gallery.space().fingerprint,
            vectors_from=self.vectors_from,
            rows=self.rows,
            rows_without_case=self.rows_without_case,
            report=report,
        )


@contextmanager
def material_of_table(
    table: Path,
    *,
    label: str = "label",
    where: Sequence[str] = (),
    gallery: Gallery | None = None,
    encoder: str = "",
    settings: Settings | None = None,
    listen: Listener | None = None,
) -> Iterator[Material]:
    """The rows of ``table`` that have ``label`` and meet all of ``where``, as cases with vectors.

    ``gallery``: its vectors are taken when it holds all those rows and ``encoder`` does not ask for another one.
    ``encoder``: spec of the encoder to embed with, the settings' own by default. Raises ``UsageError`` for a label
    or condition that the table does not know, and when nothing can be evaluated.
    """
    labels = LabelTable.read(table)
    conditions = tuple(Condition.parse(text) for text in where)
    asked = asked_rows(labels, label, conditions)
    lines = {facts.line for _, facts in asked}

    def material(held: Gallery, found: Found, vectors_from: str) -> Material:
        missing = len(lines - {facts.line for facts in found.facts})
        values = [values_of(facts, label) for facts in found.facts]
        subjects = subjects_of(held, found.keys, found.cases, found.patient_keys, values, found.attributes)
        return Material(held, subjects, label, tuple(map(str, conditions)), vectors_from, len(lines), missing)

    if gallery is not None and (not encoder or full_spec(encoder) == full_spec(gallery.encoder.card.spec)):
        found = found_in(gallery, labels, lines)
        if {facts.line for facts in found.facts} == lines:
            yield material(gallery, found, "gallery")
            return
    files = [path for path, _ in asked if path is not None]
    settings = settings or (gallery.settings if gallery else Settings())
    with _embedded(files, labels, encoder or settings.encoder, settings, listen) as own:
        yield material(own, found_in(own, labels, lines), "files")


def material_of_gallery(gallery: Gallery, label: str, condition: Filter | None = None) -> Material:
    """The cases of a gallery that have the label on file: all of them, or those that meet a filter."""
    labelled = gallery.catalog.labelled(label)
    chosen = np.flatnonzero(np.isin(labelled.keys, gallery.catalog.select(condition)))
    keys = labelled.keys[chosen]
    by_key = gallery.catalog.cases(keys)
    cases = [by_key[int(key)] for key in keys]
    patients = [labelled.patient_keys[i] for i in chosen]
    values = [tuple(labelled.values[i]) for i in chosen]
    subjects = subjects_of(gallery, keys, cases, patients, values, [case.attributes for case in cases])
    return Material(gallery, subjects, label, (), "gallery", len(chosen), 0)


def evaluate_table(
    table: Path,
    *,
    label: str = "label",
    where: Sequence[str] = (),
    gallery: Gallery | None = None,
    encoder: str = "",
    settings: Settings | None = None,
    ks: Sequence[int] = DEFAULT_KS,
    seed: int = 0,
    listen: Listener | None = None,
) -> Evaluation:
    """Leave-one-patient-out retrieval quality on rows of a table; the arguments are those of ``material_of_table``."""
    with material_of_table(
        table, label=label, where=where, gallery=gallery, encoder=encoder, settings=settings, listen=listen
    ) as material:
        return evaluate_material(material, ks, seed)


def evaluate_gallery(
    gallery: Gallery, label: str, condition: Filter | None = None, ks: Sequence[int] = DEFAULT_KS, seed: int = 0
) -> Evaluation:
    """The same on the labels a gallery already has, all cases or those that meet a filter."""
    return evaluate_material(material_of_gallery(gallery, label, condition), ks, seed)


def evaluate_material(material: Material, ks: Sequence[int] = DEFAULT_KS, seed: int = 0) -> Evaluation:
    """The report on cases that are at hand."""
    subjects = material.subjects
    origins = _told_apart([one.source for one in subjects.attributes])
    report = evaluate(subjects.vectors, subjects.patient_keys, subjects.values, ks, seed, origins=origins)
    return material.evaluation(report)


def subjects_of(
    gallery: Gallery,
    keys: Keys,
    cases: Sequence[Case],
    patient_keys: Sequence[str],
    values: Sequence[tuple[str, ...]],
    attributes: Sequence[Attributes],
) -> Subjects:
    """These cases of a gallery, with their vectors as they are searched. All sequences have one entry for each key."""
    return Subjects(
        vectors=_vectors(gallery, keys),
        case_ids=tuple(case.case_id for case in cases),
        patient_keys=tuple(tied_by_study(patient_keys, [case.study_uid for case in cases])),
        values=tuple(values),
        attributes=tuple(attributes),
        content=tuple(case.content_sha256 for case in cases),
        pixels=tuple(case.pixel_sha256 for case in cases),
    )


def _told_apart(origins: list[str]) -> list[str] | None:
    """The origins, when there is more than one: only then can knowing it help."""
    return origins if len(set(origins)) > 1 else None


def _vectors(gallery: Gallery, keys: Keys) -> UnitRows:
    """The pooled vectors of these keys as they are searched, in their order, [n, dim]."""
    space = gallery.space()
    out = np.zeros((len(keys), space.dim), dtype=np.float32)
    for stored, rows in gallery.catalog.vectors(0):
        wanted, theirs, ours = np.intersect1d(stored, keys, assume_unique=True, return_indices=True)
        if len(wanted):
            out[ours] = space.place(rows[theirs])
    return out


@contextmanager
def _embedded(
    files: Sequence[Path], labels: LabelTable, encoder: str, settings: Settings, listen: Listener | None
) -> Iterator[Gallery]:
    """A gallery of just these files, gone afterwards."""
    if not files:
        raise UsageError(
            "The rows name UIDs only and no gallery holds them all: index the files first, or add a path column."
        )
    with tempfile.TemporaryDirectory(prefix="precedent-evaluate-") as home:
        own = settings.model_copy(update={"home": Path(home), "database_url": "", "encoder": encoder})
        sandbox = Sandbox(worker_count(own), Limits.of(own))
        with Gallery.open(own, create=True) as gallery, sandbox:
            index(gallery, sandbox, files, Options(labels=labels), listen)
            yield gallery
