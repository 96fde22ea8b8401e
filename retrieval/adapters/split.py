"""Pure: labelled cases into train, validation and test parts that share no patient, study or pixels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError

MIN_GROUPS = 10  # patients a value needs: two or more of them are then left for validation and for test each
SHARES = (0.6, 0.2, 0.2)

Numbers = npt.NDArray[np.int64]
Members = npt.NDArray[np.float32]


class Part(StrEnum):
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Linked:
    """What ties a case to others, "" where unknown: one patient, one study, the same pixels as an older case."""

    case_id: str
    patient: str = ""
    study: str = ""
    duplicate_of: str = ""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Cases to learn from. ``groups``: [n], numbers of what must stay together. ``members``: [n, classes], 0 or 1.

    ``left_out``: values with too few patients, and how many they have.
    """

    chosen: Numbers  # positions in what was given, ascending
    groups: Numbers
    members: Members
    classes: tuple[str, ...]
    left_out: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Split:
    """Positions in the cohort of each part, ascending."""

    train: Numbers
    validation: Numbers
    test: Numbers

    def of(self, part: Part) -> Numbers:
        return {Part.TRAIN: self.train, Part.VALIDATION: self.validation, Part.TEST: self.test}[part]


def groups_of(links: Sequence[Linked]) -> Numbers:
    """For each case the number of its group, by first appearance: cases that a patient, a study or pixels tie, however
    indirectly. A case without any of these is a group of its own."""
    parent = list(range(len(links)))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    first: dict[tuple[str, str], int] = {}
    for n, link in enumerate(links):
        ties = (("patient", link.patient), ("study", link.study), ("pixels", link.duplicate_of or link.case_id))
        for tie in ties:
            if tie[1]:
                a, b = root(n), root(first.setdefault(tie, n))
                parent[max(a, b)] = min(a, b)
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(root(n), len(numbers)) for n in range(len(links))], dtype=np.int64)


def drawn(groups: Numbers, most: int, seed: int) -> Numbers:
    """Positions, ascending, of at most ``most`` cases: whole groups, drawn at random, each that still finds room.

    So a group too large for it, of blank frames for instance, does not keep the others out.
    """
    sizes = np.bincount(groups)
    taken, room = [], most
    for group in np.random.default_rng(seed).permutation(len(sizes)).tolist():
        if sizes[group] <= room:
            taken.append(group)
            room -= int(sizes[group])
    return np.flatnonzero(np.isin(groups, taken))


def cohort_of(links: Sequence[Linked], values: Sequence[Sequence[str]], label: str) -> Cohort:
    """The cases whose values have patients enough to learn from. UsageError, with the numbers, for fewer than two."""
    groups = groups_of(links)
    holders: dict[str, set[int]] = defaultdict(set)
    for group, of_case in zip(groups.tolist(), values, strict=True):
        for value in of_case:
            holders[value].add(group)
    classes = tuple(sorted(value for value, held in holders.items() if len(held) >= MIN_GROUPS))
    left_out = tuple(sorted((value, len(held)) for value, held in holders.items() if len(held) < MIN_GROUPS))
    if len(classes) < 2:
        raise UsageError(_too_few(label, {value: len(held) for value, held in holders.items()}))
    chosen = np.array([n for n, of_case in enumerate(values) if set(of_case) & set(classes)], dtype=np.int64)
    members = np.zeros((len(chosen), len(classes)), dtype=np.float32)
    for row, n in enumerate(chosen):
        for value in values[n]:
            if value in classes:
                members[row, classes.index(value)] = 1
    return Cohort(chosen, groups[chosen], members, classes, left_out)


def _too_few(label: str, held: dict[str, int]) -> str:
    listed = ", ".join(f"'{value}' {count}" for value, count in sorted(held.items(), key=lambda p: (-p[1], p[0]))[:8])
    return (
        f"An adapter needs at least 2 values of '{label}' with {MIN_GROUPS} patients each, so that every value is in "
        f"the train, the validation and the test part; patients on file by value: {listed or 'none'}."
    )


def split(cohort: Cohort, seed: int) -> Split:
    """Train 60 %, validation 20 %, test 20 % of the patients of every value, drawn by ``seed``."""
    rng = np.random.default_rng(seed)
    part_of = {
        group: part
        for groups in _by_rarest_value(cohort)
        for group, part in zip(rng.permutation(groups).tolist(), _dealt(len(groups), rng), strict=True)
    }
    parts = np.array([part_of[group].value for group in cohort.groups.tolist()])
    return Split(*(np.flatnonzero(parts == part.value) for part in Part))


def _by_rarest_value(cohort: Cohort) -> list[Numbers]:
    """The groups, sorted into one list for each value: that of its values which the fewest cases have."""
    frequency = cohort.members.sum(axis=0)
    rarest = np.argmin(np.where(cohort.members > 0, frequency, np.inf), axis=1)
    votes: dict[int, Counter[int]] = defaultdict(Counter)
    for group, column in zip(cohort.groups.tolist(), rarest.tolist(), strict=True):
        votes[group][column] += 1
    stratum = {group: min(count, key=lambda c: (-count[c], frequency[c], c)) for group, count in votes.items()}
    columns = range(len(cohort.classes))
    return [np.array([g for g, of in stratum.items() if of == column], dtype=np.int64) for column in columns]


def _dealt(count: int, rng: np.random.Generator) -> list[Part]:
    """Parts for ``count`` groups: a fifth each to validation and test, an odd one by chance, the rest to train."""
    fifths = [int(np.floor(share * count + rng.random())) for share in SHARES[1:]]
    small = [max(each, 1) if count >= 3 else each for each in fifths]
    train = max(count - sum(small), 0)
    dealt = [Part.TRAIN] * train + [Part.VALIDATION] * small[0] + [Part.TEST] * small[1]
    return dealt[:count]
