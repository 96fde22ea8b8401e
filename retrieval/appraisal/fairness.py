"""Every figure by sex, age band, site and scanner, and the gaps between the groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.appraisal.statistics import (
    Area,
    Average,
    CalibrationError,
    Figure,
    Numbers,
    Statistic,
    Taken,
    taken_with_draws,
)
from retrieval.appraisal.subjects import Grouping
from retrieval.resampling import Draws, Flags

LEAST_CASES, LEAST_PATIENTS = 20, 10  # of a group that is measured


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """One group and its figures."""

    name: str
    cases: int
    patients: int
    figures: tuple[Figure, ...]

    def figure(self, name: str) -> Figure | None:
        """One of its figures, None where it has no such figure."""
        return next((figure for figure in self.figures if figure.name == name), None)


@dataclass(frozen=True, slots=True)
class SmallGroup:
    """A group that is named and not measured: fewer than 20 cases or 10 patients."""

    name: str
    cases: int
    patients: int


@dataclass(frozen=True, slots=True)
class Gap:
    """How far the best and the worst group lie apart, with the interval of that difference in the same draws.

    Of a calibration error only what exceeds that by chance is compared: it is greater where cases are few.
    Which two groups they are was seen in the figures themselves, so among many groups a gap is expected by chance.
    """

    figure: str
    highest: str
    lowest: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class AttributeFigures:
    """The groups by one attribute. ``unknown``: cases of which the attribute is not known."""

    attribute: str
    groups: tuple[GroupFigures, ...]
    small: tuple[SmallGroup, ...]
    unknown: int
    gaps: tuple[Gap, ...]


def by_group(
    grouping: Grouping,
    statistics: Sequence[Statistic],
    areas: Sequence[Area],
    patients: npt.NDArray[np.int64],
    draws: Draws,
) -> AttributeFigures:
    """All figures of the groups that are large enough.

    ``areas``: one for each value of the label. Their mean, ``AUC``, is taken over those that can be measured in every
    group, so that it is of the same values everywhere.
    """
    large, small = _sorted_by_size(grouping, patients)
    common = [area for area in areas if large and all(area.enough(flags) for _, flags in large)]
    mean = [Average("AUC", common)] if common else []
    wanted: list[Statistic] = [*statistics, *mean, *areas]
    found = {name: [taken_with_draws(statistic, draws, flags) for statistic in wanted] for name, flags in large}
    groups = tuple(
        GroupFigures(name, int(flags.sum()), _patients(patients, flags), tuple(one.figure for one in found[name]))
        for name, flags in large
    )
    gaps = (
        _gap(statistic.name, [(name, found[name][n], _by_chance(statistic, flags)) for name, flags in large], draws)
        for n, statistic in enumerate(wanted)
    )
    return AttributeFigures(
        grouping.attribute, groups, small, int((grouping.group < 0).sum()), tuple(gap for gap in gaps if gap)
    )


def _sorted_by_size(
    grouping: Grouping, patients: npt.NDArray[np.int64]
) -> tuple[list[tuple[str, Flags]], tuple[SmallGroup, ...]]:
    large, small = [], []
    for number, name in enumerate(grouping.names):
        flags = grouping.group == number
        cases, count = int(flags.sum()), _patients(patients, flags)
        if cases >= LEAST_CASES and count >= LEAST_PATIENTS:
            large.append((name, flags))
        elif cases:
            small.append(SmallGroup(name, cases, count))
    return large, tuple(small)


def _patients(patients: npt.NDArray[np.int64], flags: Flags) -> int:
    return len(np.unique(patients[flags]))


def _by_chance(statistic: Statistic, chosen: Flags) -> float:
    """What is no merit or fault of a group: the error that its few cases show where every probability is right."""
    return statistic.by_chance(chosen) if isinstance(statistic, CalibrationError) else 0.0


def _beyond(values: Numbers, luck: float) -> Numbers:
    """What is left without luck, whose squares add to those of the rest; below 0 for less than luck alone makes."""
    if not luck:
        return values
    squares = values**2 - luck**2
    return np.asarray(np.sign(squares) * np.sqrt(np.abs(squares)), dtype=np.float64)


def _gap(name: str, groups: Sequence[tuple[str, Taken, float]], draws: Draws) -> Gap | None:
    measured = [
        (float(_beyond(np.array(taken.figure.value), luck)), group, _beyond(taken.drawn, luck))
        for group, taken, luck in groups
        if taken.drawn is not None
    ]
    if len(measured) < 2:
        return None
    lowest, highest = min(measured, key=lambda one: one[:2]), max(measured, key=lambda one: one[:2])
    interval = draws.interval(highest[2] - lowest[2])
    return Gap(name, highest[1], lowest[1], highest[0] - lowest[0], interval.low, interval.high)
