"""Reads what drift is told from: the cases added lately beside those before them, and cases that stand alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from retrieval.catalog.facts import CaseFacts
from retrieval.errors import UsageError
from retrieval.evidence.drift import Change, fence, holm, kinds_change, numbers_change, verdict
from retrieval.evidence.modalities import kind_of
from retrieval.evidence.usual import Asked, ask
from retrieval.gallery import Gallery
from retrieval.types import Keys

LATELY = 0.1  # share of the cases, by the order they were added in, that is compared with the rest unless told
MOST_TOLD = 20_000  # cases of either side whose attributes are compared
MOST_ASKED = 500  # cases of either side that are asked for their nearest
MOST_LISTED = 20
SAME = 0.999  # similarity of two cases from which on they are hardly two pictures
SEED = 0
KINDS = ("modality", "body_part", "sex", "source")
CLOSENESS = "nearest similarity"
QUERIES = "Of queries nothing can be told: they are not kept."


@dataclass(frozen=True, slots=True)
class Alone:
    """A case that is far less like its nearest of another patient than cases of its modality are."""

    case_id: str
    modality: str
    similarity: float
    below: float  # the fence of its modality


@dataclass(frozen=True, slots=True)
class Twins:
    """Two cases of different patients that are hardly two pictures: the same patient twice, or a copy."""

    case_id: str
    other_case_id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Month:
    """What was added in a month of the calendar. ``similarity``: median of the nearest of the sampled cases of it."""

    month: str
    cases: int
    similarity: float | None


@dataclass(frozen=True, slots=True)
class DriftReport:
    """``lately``, ``before``: cases. Lists are cut at ``MOST_LISTED``; ``asked`` cases were asked for their nearest."""

    verdict: str
    since: str
    before: int
    lately: int
    changes: tuple[Change, ...]
    alone: tuple[Alone, ...]
    twins: tuple[Twins, ...]
    months: tuple[Month, ...]
    asked: int
    notes: tuple[str, ...]

    @property
    def drifted(self) -> bool:
        return any(change.drifted for change in self.changes)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"drifted": self.drifted}


def drift(gallery: Gallery, *, since: str = "", last: int = 0) -> DriftReport:
    """Compare the cases added since a date (``2026-01-31``, or longer, UTC), or the last so many, with all before them.

    Without either, the newest tenth. UsageError when both are given or nothing is left on one side.
    """
    if since and last:
        raise UsageError("Expected a date or a number of cases, got both.")
    with gallery.catalog.one_state():
        snapshot = gallery.snapshot()
        keys = snapshot.keys()
        first = _first_lately(gallery, keys, since, last)
        before, lately = keys[keys < first], keys[keys >= first]
        if not len(before) or not len(lately):
            raise UsageError(
                f"Nothing to compare: {len(before):,} cases before and {len(lately):,} lately. "
                "Name another date or number."
            )
        rng = np.random.default_rng(SEED)
        old = [ask(gallery.catalog, snapshot, _some(rng, before, MOST_ASKED), among=before)]
        new = [ask(gallery.catalog, snapshot, _some(rng, lately, MOST_ASKED), among=before)]
        told = [gallery.catalog.facts(_some(rng, side, MOST_TOLD)) for side in (before, lately)]
    sides = [list(each.values()) for each in told]
    return _report(before, lately, sides, old[0], new[0])


def _first_lately(gallery: Gallery, keys: Keys, since: str, last: int) -> int:
    if since:
        return gallery.catalog.first_key_since(since)
    count = last or max(1, round(len(keys) * LATELY))
    return int(keys[max(0, len(keys) - count)]) if len(keys) else 0


def _some(rng: np.random.Generator, keys: Keys, most: int) -> Keys:
    return keys if len(keys) <= most else np.sort(rng.choice(keys, most, replace=False))


def _report(
    before: Keys, lately: Keys, sides: list[list[CaseFacts]], old: list[Asked], new: list[Asked]
) -> DriftReport:
    patients = _apart([_one_per_patient(side) for side in sides])
    changes = _changes(patients, old, new)
    stands = holm([change.p_value for change in changes])
    changes = [replace(change, drifted=drifted) for change, drifted in zip(changes, stands, strict=True)]
    everyone = [*old, *new]
    return DriftReport(
        verdict=verdict(changes, len(patients[0]), len(patients[1])),
        since=min((each.created_at for each in sides[1]), default=""),
        before=len(before),
        lately=len(lately),
        changes=tuple(changes),
        alone=tuple(_alone(everyone)[:MOST_LISTED]),
        twins=tuple(_twins(everyone)[:MOST_LISTED]),
        months=tuple(_months(sides[0] + sides[1], everyone)),
        asked=len(everyone),
        notes=_notes(before, lately, sides, everyone),
    )


def _apart(sides: list[list[CaseFacts]]) -> list[list[CaseFacts]]:
    """Patients known before are no new ones: they are left out of what came lately."""
    known = {each.patient for each in sides[0]} - {""}
    return [sides[0], [each for each in sides[1] if each.patient not in known]]


def _one_per_patient(facts: Sequence[CaseFacts]) -> list[CaseFacts]:
    """The first of each; one of an unknown patient stands alone."""
    return list({each.patient or each.case_id: each for each in reversed(facts)}.values())[::-1]


def _changes(patients: list[list[CaseFacts]], old: list[Asked], new: list[Asked]) -> list[Change]:
    before, lately = patients
    found = [
        kinds_change(
            name.replace("_", " "), [getattr(each, name) for each in before], [getattr(each, name) for each in lately]
        )
        for name in KINDS
    ]
    ages = [[each.age for each in side if each.age is not None] for side in patients]
    found.append(numbers_change("age", *ages))
    nearest = [_nearest_per_patient(old), _nearest_per_patient(new)]
    nearest[1] = {patient: value for patient, value in nearest[1].items() if patient not in nearest[0]}
    found.append(numbers_change(CLOSENESS, *([*each.values()] for each in nearest)))
    return [change for change in found if change is not None]


def _nearest_per_patient(asked: Sequence[Asked]) -> dict[str, float]:
    return {each.facts.patient or each.facts.case_id: float(each.near[0]) for each in reversed(asked)}


def _alone(asked: Sequence[Asked]) -> list[Alone]:
    of_kind: dict[str, list[Asked]] = defaultdict(list)
    for each in asked:
        of_kind[kind_of(each.facts.modality)].append(each)
    found = []
    for those in of_kind.values():
        below = fence(np.array([each.near[0] for each in those]))
        found += [
            Alone(each.facts.case_id, each.facts.modality, float(each.near[0]), below)
            for each in those
            if each.near[0] < below
        ]
    return sorted(found, key=lambda each: (each.similarity - each.below, each.case_id))


def _twins(asked: Sequence[Asked]) -> list[Twins]:
    pairs = {
        tuple(sorted((each.facts.case_id, each.nearest.case_id))): float(each.near[0])
        for each in asked
        if each.near[0] >= SAME
    }
    found = [Twins(one, other, similarity) for (one, other), similarity in pairs.items()]
    return sorted(found, key=lambda each: (-each.similarity, each.case_id))


def _months(facts: Sequence[CaseFacts], asked: Sequence[Asked]) -> list[Month]:
    cases: dict[str, int] = defaultdict(int)
    near: dict[str, list[float]] = defaultdict(list)
    for one in facts:
        cases[one.created_at[:7]] += 1
    for each in asked:
        near[each.facts.created_at[:7]].append(float(each.near[0]))
    return [
        Month(month, cases[month], float(np.median(near[month])) if month in near else None) for month in sorted(cases)
    ]


def _notes(before: Keys, lately: Keys, sides: list[list[CaseFacts]], asked: Sequence[Asked]) -> tuple[str, ...]:
    notes = [QUERIES]
    total = len(before) + len(lately)
    if sum(map(len, sides)) < total:
        notes.append(
            f"Attributes, and cases by month, are those of a sample of {sum(map(len, sides)):,} of {total:,} cases."
        )
    if len(asked) < total:
        notes.append(
            f"{len(asked):,} of {total:,} cases were asked for their nearest: other outliers and copies may be on file."
        )
    return tuple(notes)
