"""From cases at hand to everything that a report says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from indexer.asked_rows import PAGE
from indexer.evaluate import Evaluation, Material, subjects_of
from indexer.reporting.pictures import data_urls, picture_of, shown_rows
from retrieval.appraisal.appraise import appraise
from retrieval.appraisal.compare import Comparison, compare
from retrieval.appraisal.gates import Gate, broken_gates
from retrieval.appraisal.subjects import Subjects
from retrieval.appraisal.types import Appraisal
from retrieval.evaluation import DEFAULT_KS
from retrieval.gallery import Gallery
from retrieval.types import Case


@dataclass(frozen=True, slots=True)
class Appraised:
    """An evaluation with all its figures. ``pictures``: data URLs of the cases shown, by row of ``subjects``.

    ``broken``: a sentence for each bound that was not kept.
    """

    evaluation: Evaluation
    appraisal: Appraisal
    subjects: Subjects
    pictures: dict[int, str]
    comparison: Comparison | None
    broken: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the evaluation, then ``appraisal``, ``comparison`` (null without one) and ``broken``."""
        return self.evaluation.to_json() | {
            "appraisal": self.appraisal.to_json() | {"case_ids": list(self.subjects.case_ids)},
            "comparison": self.comparison.to_json() if self.comparison else None,
            "broken": list(self.broken),
        }


def appraised(
    material: Material,
    *,
    ks: Sequence[int] = DEFAULT_KS,
    seed: int = 0,
    other: Gallery | None = None,
    gates: Sequence[Gate] = (),
    pictures: bool = True,
) -> Appraised:
    """Every figure of the material. ``other``: a gallery to compare with, over the same cases.

    Raises ``UsageError`` when nothing can be evaluated, when the other shares too few cases, or for a bound on a
    figure that there is not.
    """
    gallery, subjects = material.gallery, material.subjects
    appraisal = appraise(subjects, ks, seed, picture=picture_of(gallery, subjects))
    broken = broken_gates(gates, appraisal.figures())
    comparison = _compared(subjects, other, ks, seed) if other is not None else None
    shown = data_urls(gallery, subjects, shown_rows(appraisal)) if pictures else {}
    return Appraised(material.evaluation(appraisal.report), appraisal, subjects, shown, comparison, broken)


def _compared(subjects: Subjects, other: Gallery, ks: Sequence[int], seed: int) -> Comparison:
    theirs = _same_cases(other, subjects)
    return compare(subjects, theirs, other.encoder.card.spec, other.space().fingerprint, ks, seed)


def _same_cases(gallery: Gallery, subjects: Subjects) -> Subjects:
    """The cases of a gallery that are among the subjects; of their facts only what identifies them is asked for."""
    contents, ids = set(subjects.content) - {""}, set(subjects.case_ids)
    found: list[Case] = []
    after = 0
    while page := gallery.catalog.list_cases(after_key=after, limit=PAGE):
        found += [case for case in page if case.content_sha256 in contents or case.case_id in ids]
        after = page[-1].key
    keys = np.array([case.key for case in found], dtype=np.int64)
    patients = [case.patient_key for case in found]
    return subjects_of(gallery, keys, found, patients, [()] * len(found), [case.attributes for case in found])
