"""Frames of one series into stacks: parallel slices of one size, one contrast and one place, in spatial order. Pure.

Order comes from positions along the slice normal, never from instance numbers or names.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from indexer.geometry import Vector, dot, stack_normal
from indexer.sources import Plane, Scan

SAME_POSITION_MM = 0.01  # scanners repeat positions to within rounding of the header's decimal strings
PARALLEL = 0.9994  # cosine of 2 degrees
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?\Z")
APART_STEPS = 10.0  # a gap of more slice steps than this, with slices on both sides, parts two stacks


@dataclass(frozen=True, slots=True)
class Slice:
    """One frame with a place. ``scan`` and ``frame`` are 0-based indices; ``position`` is along the stack's normal."""

    scan: int
    frame: int
    plane: Plane
    position: float = 0.0


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices in ascending position, one for each; ``unused``: repetitions left out; ``volumes``: how many there are.

    A stack that stays at one position is a cine: all its frames, in the order of time.
    """

    slices: tuple[Slice, ...]
    unused: tuple[Slice, ...] = ()
    volumes: int = 1

    @property
    def steps(self) -> list[float]:
        return [b.position - a.position for a, b in pairwise(self.slices)]

    @property
    def step(self) -> float | None:
        """The usual distance between neighbours (mm), None for a single slice or a cine."""
        return (median(self.steps) or None) if len(self.slices) > 1 else None


def contrast_of(stack: str) -> str:
    """A Plane's ``stack`` less its time: frames that differ in it are other pictures, not repetitions."""
    return ";".join(part for part in stack.split(";") if part and not part.startswith("t="))


def time_of(stack: str) -> float:
    """The ``t`` of a Plane's ``stack``; 0 when it has none."""
    found = next((part[2:] for part in stack.split(";") if part.startswith("t=")), "0")
    try:
        return float(found)
    except ValueError:
        return 0.0


def stacks_of(scans: Sequence[Scan], wanted: Iterable[int]) -> list[Stack]:
    """Every stack of the volumetric scans ``wanted``, the largest first; the order of ``scans`` does not matter as
    long as it is the same for the same set of files."""
    apart: dict[tuple[object, ...], list[Slice]] = defaultdict(list)
    for number in wanted:
        for frame, plane in enumerate(scans[number].planes):
            apart[_kind(scans[number], plane)].append(Slice(number, frame, plane))
    stacks = [
        _fold(run, scans)
        for slices in apart.values()
        for parallel in _cluster(slices, _are_parallel)
        for place in _places(_positioned(parallel))
        for run in _runs(place)
    ]
    return sorted(stacks, key=lambda stack: (-len(stack.slices), _name(stack, scans)))


def tilt_degrees(stack: Stack) -> float:
    """Angle between the slice normal and the way from the first slice to the last: gantry tilt, or a sheared stack."""
    first, last = stack.slices[0].plane, stack.slices[-1].plane
    travel = tuple(b - a for a, b in zip(first.position, last.position, strict=True))
    length = math.sqrt(dot(travel, travel))
    if length < SAME_POSITION_MM:
        return 0.0
    cosine = abs(dot(travel, stack_normal(first.row, first.column))) / length
    return math.degrees(math.acos(min(1.0, cosine)))


def _kind(scan: Scan, plane: Plane) -> tuple[object, ...]:
    spacing = scan.spacing and (round(scan.spacing[0], 3), round(scan.spacing[1], 3))
    colour = scan.attributes.modality
    return scan.patient_id, scan.issuer, scan.rows, scan.columns, spacing, colour, contrast_of(plane.stack)


def _are_parallel(a: Slice, b: Slice) -> bool:
    return dot(a.plane.row, b.plane.row) > PARALLEL and dot(a.plane.column, b.plane.column) > PARALLEL


def _cluster(slices: list[Slice], alike: Callable[[Slice, Slice], bool]) -> list[list[Slice]]:
    """Greedy: each slice joins the first cluster whose first member it is like."""
    clusters: list[list[Slice]] = []
    for each in slices:
        home = next((cluster for cluster in clusters if alike(cluster[0], each)), None)
        if home is None:
            clusters.append([each])
        else:
            home.append(each)
    return clusters


def _positioned(slices: list[Slice]) -> list[Slice]:
    """With positions along one common normal, ascending."""
    normal = stack_normal(slices[0].plane.row, slices[0].plane.column)
    placed = [Slice(s.scan, s.frame, s.plane, dot(s.plane.position, normal)) for s in slices]
    return sorted(placed, key=lambda s: (s.position, s.scan, s.frame))


def _by_position(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices that share a position, in ascending position."""
    groups: list[list[Slice]] = []
    for each in slices:
        if groups and each.position - groups[-1][0].position <= SAME_POSITION_MM:
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups


def _places(slices: list[Slice]) -> list[list[Slice]]:
    """Stacks side by side (both hips, say): frames at one position whose corners are apart within the plane."""
    shared = [group for group in _by_position(slices) if len(group) > 1]
    if all(_same_corner(group[0], other) for group in shared for other in group[1:]):
        return [slices]
    return [_positioned(cluster) for cluster in _cluster(slices, _same_corner)]


def _same_corner(a: Slice, b: Slice) -> bool:
    """The corners coincide within 1 mm, seen along the normal."""
    apart: Vector = (
        b.plane.position[0] - a.plane.position[0],
        b.plane.position[1] - a.plane.position[1],
        b.plane.position[2] - a.plane.position[2],
    )
    return abs(dot(apart, a.plane.row)) < 1.0 and abs(dot(apart, a.plane.column)) < 1.0


def _runs(slices: list[Slice]) -> list[list[Slice]]:
    """Parted where a gap is far too wide for missing slices and there is a stack on either side of it."""
    groups = _by_position(slices)
    steps = [b[0].position - a[0].position for a, b in pairwise(groups)]
    if len(steps) < 4:
        return [slices]
    widest = APART_STEPS * median(steps)
    cuts = [0, *(i + 1 for i, step in enumerate(steps) if step > widest), len(groups)]
    runs = [groups[a:b] for a, b in pairwise(cuts)]
    if any(len(run) < 3 for run in runs):
        return [slices]
    return [[each for group in run for each in group] for run in runs]


def _fold(slices: list[Slice], scans: Sequence[Scan]) -> Stack:
    """One slice for each position: the first point in time that has them all, else the first there is of each."""
    groups = _by_position(slices)
    volumes = max(len(group) for group in groups)
    if volumes == 1:
        return Stack(tuple(slices))

    def age(each: Slice) -> tuple[float, int, str, int]:
        scan = scans[each.scan]
        return (time_of(each.plane.stack), scan.instance_number or 0, scan.sha256, each.frame)

    if len(groups) == 1:
        still = groups[0][0].position
        return Stack(tuple(replace(each, position=still) for each in sorted(slices, key=age)))
    times = sorted({time_of(each.plane.stack) for each in slices})
    chosen: list[Slice] = []
    for time in times:
        now = [min((s for s in g if time_of(s.plane.stack) == time), key=age, default=None) for g in groups]
        if all(now):
            chosen = [each for each in now if each is not None]
            break
    chosen = chosen or [min(group, key=age) for group in groups]
    used = {(each.scan, each.frame) for each in chosen}
    return Stack(tuple(chosen), tuple(s for s in slices if (s.scan, s.frame) not in used), volumes)


def _name(stack: Stack, scans: Sequence[Scan]) -> tuple[object, ...]:
    """What orders stacks of one length: contrast (b=50 before b=400), then place, then bytes."""
    first = stack.slices[0]
    return (_sortable(contrast_of(first.plane.stack)), first.position, scans[first.scan].sha256, first.frame)


def _sortable(contrast: str) -> tuple[tuple[str, float, str], ...]:
    pairs = (part.partition("=") for part in contrast.split(";"))
    return tuple((name, float(text) if _NUMBER.match(text) else math.inf, text) for name, _, text in pairs)
