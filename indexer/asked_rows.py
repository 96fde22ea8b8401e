"""The rows of a labels file that an evaluation asks for, and the cases of a gallery that they speak of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.labels import LabelTable, RowFacts
from indexer.originals import unseal
from retrieval.errors import UsageError
from retrieval.gallery import Gallery
from retrieval.types import Attributes, Case, Keys

PAGE = 1000  # cases read at a time
_ATTRIBUTES = ("modality", "body_part", "view", "laterality", "sex", "manufacturer", "source")


@dataclass(frozen=True, slots=True)
class Condition:
    """``name`` of a label or attribute, and the values of which a row must have one."""

    name: str
    values: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> Condition:
        """From ``split=test`` or ``view=PA|AP``."""
        name, equals, values = text.partition("=")
        if not name.strip() or not equals:
            raise UsageError(f"Expected a condition such as split=test, got '{text}'.")
        return cls(name.strip(), frozenset(value.strip() for value in values.split("|")))

    def holds(self, facts: RowFacts) -> bool:
        """Capitals do not matter: CHEST and chest are one body part."""
        said = {value.casefold() for value in values_of(facts, self.name)}
        return bool(said & {value.casefold() for value in self.values})

    def __str__(self) -> str:
        return f"{self.name}={'|'.join(sorted(self.values))}"


@dataclass(frozen=True, slots=True)
class Found:
    """Cases of a gallery that rows speak of."""

    keys: Keys
    patient_keys: list[str]
    facts: list[RowFacts]
    cases: list[Case]

    @property
    def attributes(self) -> list[Attributes]:
        """Of each case, with what its row states put in place of what is on file."""
        return [facts.over(case.attributes) for facts, case in zip(self.facts, self.cases, strict=True)]


def asked_rows(labels: LabelTable, label: str, conditions: Sequence[Condition]) -> list[tuple[Path | None, RowFacts]]:
    """The rows that have ``label`` and meet all conditions; UsageError for a name the table lacks, or no such row."""
    known = (*labels.label_names, *_ATTRIBUTES)
    for name in (label, *(condition.name for condition in conditions)):
        if name not in known:
            raise UsageError(
                f"The table has no column '{name}' to evaluate on; it has: {', '.join(labels.label_names)}."
            )
    asked = [
        (path, facts)
        for path, facts in labels.rows()
        if values_of(facts, label) and all(condition.holds(facts) for condition in conditions)
    ]
    if not asked:
        meeting = "".join(f" and {condition}" for condition in conditions)
        raise UsageError(f"No row of the table has a value of '{label}'{meeting}: nothing can be evaluated.")
    return asked


def values_of(facts: RowFacts, label: str) -> tuple[str, ...]:
    """The values of a label, or of an attribute, that a row states."""
    if label in _ATTRIBUTES:
        value = getattr(facts.attributes, label)
        return (value,) if value else ()
    return tuple(said.value for said in facts.labels if said.name == label)


def found_in(gallery: Gallery, labels: LabelTable, lines: set[int]) -> Found:
    """The gallery's cases that the asked rows speak of, in the order of the table: keys depend on the run."""
    met = []
    for case in _cases(gallery):
        facts = _facts_of(gallery, labels, case)
        if facts is not None and facts.line in lines:
            met.append((facts.line, case.case_id, facts, case))
    met.sort(key=lambda pair: pair[:2])
    patients = [gallery.secret.patient_key(facts.patient_id) or case.patient_key for *_, facts, case in met]
    return Found(
        keys=np.array([case.key for *_, case in met], dtype=np.int64),
        patient_keys=gallery.catalog.patients(patients),
        facts=[facts for *_, facts, _ in met],
        cases=[case for *_, case in met],
    )


def _facts_of(gallery: Gallery, labels: LabelTable, case: Case) -> RowFacts | None:
    """What the table says of a case on file, by where its first file was, if it was read from any, and by its UIDs."""
    place = Path("/")
    for file in gallery.catalog.files(case.case_id)[:1]:
        source, _ = unseal(file.sealed_path, gallery.secret)
        place = source.path / source.member if source.member else source.path
    sop_uid = case.frames[0].sop_instance_uid if case.frames else ""
    return labels.match(place, case.study_uid, case.series_uid, sop_uid)


def _cases(gallery: Gallery) -> Iterator[Case]:
    after = 0
    while page := gallery.catalog.list_cases(after_key=after, limit=PAGE):
        yield from page
        after = page[-1].key
