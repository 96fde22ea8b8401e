"""Files of one series into cases: what is a picture, what a volume, in which order, and what is odd. Pure.

* A frame that is not part of a stack in space (X-ray, ultrasound, photograph) is an IMAGE.
* Parallel CT/MR/PET/NM slices are a VOLUME, ordered by position; a stack of one slice is an IMAGE.
* A multi-frame file without geometry (a cine loop), or slices that stay at one position, are a VOLUME in the order of
  time.
* A series that holds several stacks (orientations, sizes, echoes, b-values, far-apart places) gives one case each, the
  largest first; repetitions of one volume in time give one case, of the first complete one.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from indexer.limits import Limits
from indexer.pixels import plane_of, turn_of
from indexer.quality import stack_warnings
from indexer.sources import SPATIAL, Scan, Source
from indexer.stacks import Stack, contrast_of, stacks_of
from retrieval.errors import LimitExceeded
from retrieval.types import Attributes, CaseKind

_LOCALIZER = frozenset({"LOCALIZER", "SCOUT"})

Skipped = tuple[Source, str]


@dataclass(frozen=True, slots=True)
class PlannedFrame:
    """Slice of a case: 0-based index into ``CasePlan.scans``, 0-based frame of that file, mm along the normal."""

    file: int
    frame: int
    position_mm: float | None = None
    sop_uid: str = ""


@dataclass(frozen=True, slots=True)
class CasePlan:
    """A case before its pixels are read. ``rows``, ``columns`` and ``spacing`` are those of the turned frames.

    ``part``: which stack of its series a volume is, "" for other cases. ``skipped``: files (or some of their frames)
    that are in no case, each with a reason; told once, on the first plan of a series.
    """

    case_id: str
    kind: CaseKind
    scans: tuple[Scan, ...]
    frames: tuple[PlannedFrame, ...]
    attributes: Attributes = field(default_factory=Attributes)
    part: str = ""
    rows: int = 0
    columns: int = 0
    spacing: tuple[float, float] | None = None
    slice_spacing_mm: float | None = None
    plane: str = ""
    study_uid: str = ""
    series_uid: str = ""
    patient_id: str = field(default="", repr=False)
    issuer: str = field(default="", repr=False)
    warnings: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()


def group_key(scan: Scan) -> str:
    """Scans with equal keys are assembled together: the series, or the file alone when it names none."""
    return scan.series_uid if scan.format == "dicom" and scan.series_uid else scan.sha256


def stands_alone(scan: Scan) -> bool:
    """Whether no other file can change the cases this one gives: it names no series, or holds pictures that have no
    place in a stack (a radiograph, a mammogram, an ultrasound loop). It need not wait for the rest of its series."""
    return group_key(scan) == scan.sha256 or not (scan.volumetric or scan.attributes.modality in SPATIAL)


def case_id(kind: CaseKind, identity: str, part: str = "") -> str:
    """16 lower-case base32 characters (80 bits) of SHA-256 over what a case is: same case, same id, anywhere."""
    digest = hashlib.sha256(f"{kind.value}\n{identity}\n{part}".encode()).digest()
    return base64.b32encode(digest[:10]).decode().lower()


def derived_uid(purpose: str, sha256: str) -> str:
    """A deterministic UID for a file that has none (PS3.5 B.2: 2.25. and a 128-bit number)."""
    digest = hashlib.sha256(f"{purpose}\n{sha256}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def assemble(scans: Sequence[Scan], limits: Limits) -> list[CasePlan]:
    """The cases of one group of scans (equal ``group_key``); the order of ``scans`` does not matter.

    Every frame is in exactly one case or told in ``skipped``; scans without frames give no case and, when no other
    scan of the group does, no plan to tell them in. Raises LimitExceeded (stage "assemble") for too large a series.
    """
    skipped: list[Skipped] = []
    ordered = sorted(scans, key=lambda scan: (scan.sha256, str(scan.source)))
    kept, notes = _pictures(ordered, skipped)
    volumetric = [n for n, scan in enumerate(kept) if scan.volumetric and len(scan.planes) == scan.frames]
    stacks = stacks_of(kept, volumetric)
    split = _split_notes(kept, stacks)
    notes += split
    _tell_repetitions(kept, stacks, skipped)
    plans = []
    for stack, part in zip(stacks, _parts(kept, stacks), strict=True):
        if len(stack.slices) > 1:
            plans.append(_volume(kept, stack, part, notes, bool(split)))
        else:
            plans.append(_slice(kept, stack, notes))
    standing = set(volumetric)
    for number, scan in enumerate(kept):
        if number not in standing:
            plans.append(_image(scan, notes) if scan.frames == 1 else _loop(scan, notes))
    for plan in plans:
        _check(plan, limits)
    if plans and skipped:
        plans[0] = _with_skipped(plans[0], skipped)
    return plans


def _pictures(ordered: Sequence[Scan], skipped: list[Skipped]) -> tuple[list[Scan], list[str]]:
    """The scans to use: with frames, each once, and no localizer among slices."""
    kept: list[Scan] = []
    by_sha: set[str] = set()
    by_sop: dict[str, str] = {}
    told: Counter[str] = Counter()
    scouts_only = all(_LOCALIZER.intersection(scan.image_type) for scan in ordered if scan.frames)
    for scan in ordered:
        other = by_sop.get(scan.sop_uid, scan.sha256) if scan.sop_uid else scan.sha256
        if scan.frames < 1:
            skipped.append((scan.source, next(iter(scan.warnings), "No pixels.")))
        elif scan.sha256 in by_sha:
            told["exact duplicates"] += 1
            skipped.append((scan.source, "The same bytes as another file of the series."))
        elif other != scan.sha256:
            told["other files with a SOPInstanceUID already used"] += 1
            clash = f"sha256 {other} is used, {scan.sha256} is not."
            skipped.append((scan.source, f"The same SOPInstanceUID as another file but other bytes: {clash}"))
        elif not scouts_only and _LOCALIZER.intersection(scan.image_type):
            told["localizers"] += 1
            skipped.append((scan.source, "A localizer among the slices of a series."))
        else:
            kept.append(scan)
            by_sha.add(scan.sha256)
            by_sop[scan.sop_uid] = scan.sha256
    return kept, [f"Left out: {count} {what}." for what, count in sorted(told.items())]


def _split_notes(scans: Sequence[Scan], stacks: Sequence[Stack]) -> list[str]:
    """What several stacks of one series differ in."""
    if len(stacks) < 2:
        return []
    leading = [(scans[stack.slices[0].scan], stack.slices[0].plane) for stack in stacks]
    ways: list[tuple[str, set[object]]] = [
        ("patients", {(scan.patient_id, scan.issuer) for scan, _ in leading}),
        ("image sizes", {(scan.rows, scan.columns) for scan, _ in leading}),
        ("pixel spacings", {scan.spacing for scan, _ in leading}),
        ("orientations", {tuple(round(x, 1) for x in (*p.row, *p.column)) for _, p in leading}),
        ("contrasts", {contrast_of(plane.stack) for _, plane in leading}),
    ]
    differing = [f"{len(values)} {name}" for name, values in ways if len(values) > 1]
    return [f"The series was split into {len(stacks)} stacks ({', '.join(differing) or 'in different places'})."]


def _parts(scans: Sequence[Scan], stacks: Sequence[Stack]) -> list[str]:
    """What tells each stack from the others of its series, by what it is and not by how many others there are: a stack
    keeps its identity when more of the series arrives. Equal ones are counted in the order of their places."""

    def what(n: int) -> str:
        first = stacks[n].slices[0]
        scan = scans[first.scan]
        size = "x".join(map(str, sorted((scan.rows, scan.columns))))
        size += "".join(f"@{each:.2f}" for each in sorted(scan.spacing or ()))
        return "|".join([plane_of(first.plane.row, first.plane.column), size, contrast_of(first.plane.stack)])

    volumes = [n for n, stack in enumerate(stacks) if len(stack.slices) > 1]
    found = [""] * len(stacks)
    told: Counter[str] = Counter()
    for n in sorted(volumes, key=lambda n: (what(n), stacks[n].slices[0].position, stacks[n].slices[0].plane.position)):
        told[what(n)] += 1
        found[n] = f"{what(n)}#{told[what(n)]}"
    return found


def _tell_repetitions(scans: Sequence[Scan], stacks: Iterable[Stack], skipped: list[Skipped]) -> None:
    unused: dict[int, int] = defaultdict(int)
    for stack in stacks:
        for each in stack.unused:
            unused[each.scan] += 1
    for number, count in sorted(unused.items()):
        reason = f"{count} of {scans[number].frames} frames repeat positions of the volume that is used."
        skipped.append((scans[number].source, reason))


def _volume(scans: Sequence[Scan], stack: Stack, part: str, notes: Sequence[str], split: bool) -> CasePlan:
    files = list(dict.fromkeys(each.scan for each in stack.slices))
    number = {scan: n for n, scan in enumerate(files)}
    used = tuple(scans[n] for n in files)
    frames = tuple(
        PlannedFrame(number[each.scan], each.frame, round(each.position, 4), _sop_uid(scans[each.scan]))
        for each in stack.slices
    )
    contrast = contrast_of(stack.slices[0].plane.stack)
    own = [f"This stack is the one of {contrast.replace(';', ', ')}."] if split and contrast else []
    warnings = (*notes, *own, *stack_warnings(stack))
    return _plan(CaseKind.VOLUME, used, frames, _series_uid(used[0]), part, warnings, stack)


def _slice(scans: Sequence[Scan], stack: Stack, notes: Sequence[str]) -> CasePlan:
    """A stack of one: a picture with a place."""
    only = stack.slices[0]
    scan = scans[only.scan]
    frame = PlannedFrame(0, only.frame, round(only.position, 4), _sop_uid(scan))
    identity = _sop_uid(scan) if scan.frames == 1 else f"{_sop_uid(scan)}#{only.frame + 1}"
    return _plan(CaseKind.IMAGE, (scan,), (frame,), identity, "", (*notes, *stack_warnings(stack)), stack)


def _image(scan: Scan, notes: Sequence[str]) -> CasePlan:
    sop_uid = _sop_uid(scan)
    return _plan(CaseKind.IMAGE, (scan,), (PlannedFrame(0, 0, None, sop_uid),), sop_uid, "", tuple(notes))


def _loop(scan: Scan, notes: Sequence[str]) -> CasePlan:
    """Frames in the order of the file. Its identity is the instance, as a series can hold many loops."""
    sop_uid = _sop_uid(scan)
    frames = tuple(PlannedFrame(0, n, None, sop_uid) for n in range(scan.frames))
    return _plan(CaseKind.VOLUME, (scan,), frames, sop_uid, "", tuple(notes))


def _plan(
    kind: CaseKind, scans: tuple[Scan, ...], frames: tuple[PlannedFrame, ...], identity: str, part: str,
    warnings: tuple[str, ...], stack: Stack | None = None,
) -> CasePlan:  # fmt: skip
    first = scans[0]
    rows, columns, spacing, plane = first.rows, first.columns, first.spacing, ""
    if stack is not None:
        at = stack.slices[0].plane
        plane = plane_of(at.row, at.column)
        if turn_of(at.row, at.column)[0]:
            rows, columns, spacing = columns, rows, spacing and (spacing[1], spacing[0])
    return CasePlan(
        case_id(kind, identity, part), kind, scans, frames,
        attributes=first.attributes,
        part=part,
        rows=rows,
        columns=columns,
        spacing=spacing,
        slice_spacing_mm=stack.step if stack else None,
        plane=plane,
        study_uid=first.study_uid or derived_uid("study", first.sha256),
        series_uid=_series_uid(first),
        patient_id=first.patient_id,
        issuer=first.issuer,
        warnings=tuple(dict.fromkeys((*warnings, *(each for scan in scans for each in scan.warnings)))),
    )  # fmt: skip


def _with_skipped(plan: CasePlan, skipped: Sequence[Skipped]) -> CasePlan:
    return replace(plan, skipped=tuple(sorted(skipped, key=lambda each: (str(each[0]), each[1]))))


def _check(plan: CasePlan, limits: Limits) -> None:
    if len(plan.frames) > limits.frames:
        raise LimitExceeded(
            "assemble", f"A series of {len(plan.frames)} frames is over the limit of {limits.frames} (max_frames)."
        )
    voxels = len(plan.frames) * plan.rows * plan.columns
    if voxels > limits.voxels:
        raise LimitExceeded(
            "assemble", f"A series of {voxels} voxels is over the limit of {limits.voxels} (max_voxels_million)."
        )


def _sop_uid(scan: Scan) -> str:
    return scan.sop_uid or derived_uid("instance", scan.sha256)


def _series_uid(scan: Scan) -> str:
    return scan.series_uid or derived_uid("series", scan.sha256)
