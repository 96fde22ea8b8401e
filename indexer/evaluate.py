"""A labels file in, retrieval quality out: the cases its rows name are ranked against one another.

Vectors come from a gallery that holds every row asked for; otherwise the files are embedded into a gallery of their
own, by the ordinary pipeline, which is thrown away afterwards.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.events import Listener
from indexer.labels import LabelTable, RowFacts
from indexer.limits import Limits
from indexer.originals import unseal
from indexer.pipeline import Options, index
from indexer.sandbox import Sandbox
from indexer.workers import worker_count
from retrieval.encoders import full_spec
from retrieval.errors import UsageError
from retrieval.evaluation import DEFAULT_KS, EvaluationReport, evaluate
from retrieval.filters import Filter
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.space import Space
from retrieval.types import Case, Keys, UnitRows

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
        said = {value.casefold() for value in _values(facts, self.name)}
        return bool(said & {value.casefold() for value in self.values})

    def __str__(self) -> str:
        return f"{self.name}={'|'.join(sorted(self.values))}"


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
class _Found:
    """Cases of a gallery that rows speak of."""

    keys: Keys
    patient_keys: list[str]
    origins: list[str]  # the data set or site of each
    facts: list[RowFacts]


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
    """Leave-one-patient-out retrieval quality on the rows of ``table`` that have ``label`` and meet all of ``where``.

    ``gallery``: its vectors are taken when it holds all those rows and ``encoder`` does not ask for another one.
    ``encoder``: spec of the encoder to embed with, the settings' own by default. Raises ``UsageError`` for a label
    or condition that the table does not know, and when nothing can be evaluated.
    """
    labels = LabelTable.read(table)
    conditions = tuple(Condition.parse(text) for text in where)
    asked = _asked(labels, label, conditions)
    lines = {facts.line for _, facts in asked}
    if gallery is not None and (not encoder or full_spec(encoder) == full_spec(gallery.encoder.card.spec)):
        found = _found(gallery, labels, lines)
        if {facts.line for facts in found.facts} == lines:
            return _evaluated(gallery, found, label, conditions, lines, "gallery", ks, seed)
    files = [path for path, _ in asked if path is not None]
    settings = settings or (gallery.settings if gallery else Settings())
    with _embedded(files, labels, encoder or settings.encoder, settings, listen) as own:
        return _evaluated(own, _found(own, labels, lines), label, conditions, lines, "files", ks, seed)


def evaluate_gallery(
    gallery: Gallery, label: str, condition: Filter | None = None, ks: Sequence[int] = DEFAULT_KS, seed: int = 0
) -> Evaluation:
    """The same on the labels a gallery already has, all cases or those that meet a filter."""
    labelled = gallery.catalog.labelled(label)
    kept = np.isin(labelled.keys, gallery.catalog.select(condition))
    chosen = np.flatnonzero(kept)
    cases = gallery.catalog.cases(labelled.keys[chosen])
    space = gallery.space()
    report = evaluate(
        _vectors(gallery, space, labelled.keys[chosen]),
        [labelled.patient_keys[i] for i in chosen],
        [labelled.values[i] for i in chosen],
        ks,
        seed,
        origins=_told_apart([cases[int(labelled.keys[i])].attributes.source for i in chosen]),
    )
    card = gallery.encoder.card
    return Evaluation(label, (), card.spec, space.fingerprint, "gallery", len(chosen), 0, report)


def _asked(labels: LabelTable, label: str, conditions: Sequence[Condition]) -> list[tuple[Path | None, RowFacts]]:
    known = (*labels.label_names, *_ATTRIBUTES)
    for name in (label, *(condition.name for condition in conditions)):
        if name not in known:
            raise UsageError(
                f"The table has no column '{name}' to evaluate on; it has: {', '.join(labels.label_names)}."
            )
    asked = [
        (path, facts)
        for path, facts in labels.rows()
        if _values(facts, label) and all(condition.holds(facts) for condition in conditions)
    ]
    if not asked:
        meeting = "".join(f" and {condition}" for condition in conditions)
        raise UsageError(f"No row of the table has a value of '{label}'{meeting}: nothing can be evaluated.")
    return asked


def _values(facts: RowFacts, label: str) -> tuple[str, ...]:
    """The values of a label, or of an attribute, that a row states."""
    if label in _ATTRIBUTES:
        value = getattr(facts.attributes, label)
        return (value,) if value else ()
    return tuple(said.value for said in facts.labels if said.name == label)


def _found(gallery: Gallery, labels: LabelTable, lines: set[int]) -> _Found:
    """The gallery's cases that the asked rows speak of, in the order of the table: keys depend on the run."""
    met = []
    for case in _cases(gallery):
        facts = _facts_of(gallery, labels, case)
        if facts is not None and facts.line in lines:
            met.append((facts.line, case.case_id, facts, case))
    met.sort(key=lambda pair: pair[:2])
    patients = [gallery.secret.patient_key(facts.patient_id) or case.patient_key for *_, facts, case in met]
    return _Found(
        keys=np.array([case.key for *_, case in met], dtype=np.int64),
        patient_keys=gallery.catalog.patients(patients),
        origins=[facts.attributes.source or case.attributes.source for *_, facts, case in met],
        facts=[facts for *_, facts, _ in met],
    )


def _facts_of(gallery: Gallery, labels: LabelTable, case: Case) -> RowFacts | None:
    """What the table says of a case on file, by where its first file was, if it was read from any, and by its UIDs."""
    place = Path("/")
    for file in gallery.catalog.files(case.case_id)[:1]:
        source, _ = unseal(file.sealed_path, gallery.secret)
        place = source.path / source.member if source.member else source.path
    sop_uid = case.frames[0].sop_instance_uid if case.frames else ""
    return labels.match(place, case.study_uid, case.series_uid, sop_uid)


def _told_apart(origins: list[str]) -> list[str] | None:
    """The origins, when there is more than one: only then can knowing it help."""
    return origins if len(set(origins)) > 1 else None


def _cases(gallery: Gallery) -> Iterator[Case]:
    after = 0
    while page := gallery.catalog.list_cases(after_key=after, limit=PAGE):
        yield from page
        after = page[-1].key


def _vectors(gallery: Gallery, space: Space, keys: Keys) -> UnitRows:
    """The pooled vectors of these keys as they are searched, in their order, [n, dim]."""
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


def _evaluated(
    gallery: Gallery,
    found: _Found,
    label: str,
    conditions: Sequence[Condition],
    lines: set[int],
    vectors_from: str,
    ks: Sequence[int],
    seed: int,
) -> Evaluation:
    values = [_values(facts, label) for facts in found.facts]
    space = gallery.space()
    vectors = _vectors(gallery, space, found.keys)
    report = evaluate(vectors, found.patient_keys, values, ks, seed, origins=_told_apart(found.origins))
    return Evaluation(
        label=label,
        where=tuple(map(str, conditions)),
        encoder=gallery.encoder.card.spec,
        fingerprint=space.fingerprint,
        vectors_from=vectors_from,
        rows=len(lines),
        rows_without_case=len(lines - {facts.line for facts in found.facts}),
        report=report,
    )
