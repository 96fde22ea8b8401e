"""Where the frames of a DICOM image lie in the patient (PS3.3 C.7.6.2, C.7.6.16, C.8.4.9), LPS millimetres.

``stack`` strings are ``name=value`` pairs joined by ``;``. ``t`` (time, phase, repetition) tells repetitions of one
volume apart; all others (echo, b-value, image type, stack id) tell apart contrasts that make cases of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset

from indexer.geometry import Vector, cross, directions
from indexer.readers.dicom import values
from indexer.sources import Plane

_SIEMENS_B = re.compile(r"ep_b(\d{1,5})")
_CONTRAST_FRAME_TYPES = frozenset({"M", "P", "R", "I", "MAGNITUDE", "PHASE", "REAL", "IMAGINARY"})
_COMPLEX = frozenset({"MAGNITUDE", "PHASE", "REAL", "IMAGINARY"})
_DIXON = frozenset({"W", "F", "IP", "OP", "WATER", "FAT", "IN_PHASE", "OUT_PHASE", "FAT_FRACTION"})


def frame_groups(header: Dataset, frames: int) -> list[tuple[Dataset | None, Dataset | None]]:
    """(per-frame, shared) functional groups of every frame; [] for an image that has none."""
    per_frame = values.items(header, "PerFrameFunctionalGroupsSequence")
    shared = values.item(header, "SharedFunctionalGroupsSequence")
    if not per_frame and shared is None:
        return []
    padded: list[Dataset | None] = [*per_frame[:frames], *[None] * (frames - len(per_frame))]
    return [(each, shared) for each in padded]


def macro(groups: tuple[Dataset | None, Dataset | None], sequence: str) -> Dataset | None:
    """The macro's item for one frame: its own, else the shared one (PS3.3 C.7.6.16.1)."""
    for group in groups:
        if group is not None and (found := values.item(group, sequence)) is not None:
            return found
    return None


def spacing_of(
    header: Dataset, groups: tuple[Dataset | None, Dataset | None] | None = None
) -> tuple[float, float] | None:
    """(between rows, between columns): pixel spacing, else at the detector, else as scanned; None when nonsense."""
    sources = [header]
    if groups is not None and (measures := macro(groups, "PixelMeasuresSequence")) is not None:
        sources.insert(0, measures)
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        for source in sources:
            found = values.numbers(source, keyword)
            if len(found) == 2 and min(found) > 1e-6 and max(found) < 1e4:
                return (found[0], found[1])
    return None


def planes_of(header: Dataset, frames: int) -> tuple[Plane, ...]:
    """One Plane per frame, or () when the file does not say where every one of its frames lies."""
    groups = frame_groups(header, frames)
    if groups:
        return _enhanced(groups)
    if frames > 1:
        return _nuclear(header, frames)
    turned = directions(values.numbers(header, "ImageOrientationPatient"))
    position = values.numbers(header, "ImagePositionPatient")
    if turned is None or len(position) != 3:
        return ()
    return (Plane((position[0], position[1], position[2]), *turned, stack=_classic_stack(header)),)


def _enhanced(groups: Iterable[tuple[Dataset | None, Dataset | None]]) -> tuple[Plane, ...]:
    planes = []
    for group in groups:
        orientation = macro(group, "PlaneOrientationSequence")
        position = macro(group, "PlanePositionSequence")
        if orientation is None or position is None:
            return ()
        turned = directions(values.numbers(orientation, "ImageOrientationPatient"))
        where = values.numbers(position, "ImagePositionPatient")
        if turned is None or len(where) != 3:
            return ()
        planes.append(Plane((where[0], where[1], where[2]), *turned, stack=_enhanced_stack(group)))
    return tuple(planes)


def _nuclear(header: Dataset, frames: int) -> tuple[Plane, ...]:
    """A reconstructed NM volume: one position and orientation, the rest by SpacingBetweenSlices (PS3.3 C.8.4.15)."""
    detector = values.item(header, "DetectorInformationSequence")
    step = values.number(header, "SpacingBetweenSlices") or values.number(header, "SliceThickness")
    if detector is None or not step or "TOMO" not in " ".join(values.texts(header, "ImageType")):
        return ()
    turned = directions(values.numbers(detector, "ImageOrientationPatient"))
    position = values.numbers(detector, "ImagePositionPatient")
    if turned is None or len(position) != 3:
        return ()
    return stacked(((position[0], position[1], position[2])), turned, step, frames)


def stacked(
    first: Vector, turned: tuple[Vector, Vector], step: float, frames: int, stack: str = ""
) -> tuple[Plane, ...]:
    """``frames`` parallel planes, ``step`` mm apart along the normal."""
    along = cross(*turned)
    return tuple(
        Plane((first[0] + i * step * along[0], first[1] + i * step * along[1], first[2] + i * step * along[2]), *turned,
              stack=stack)
        for i in range(frames)
    )  # fmt: skip


def _classic_stack(header: Dataset) -> str:
    facts: list[tuple[str, float | str | None]] = [
        ("echo", values.number(header, "EchoNumbers")),
        ("b", _b_value(header)),
        ("type", _contrast_type(values.texts(header, "ImageType"))),
        ("t", values.number(header, "TemporalPositionIdentifier")),
    ]
    return _join(facts)


def _b_value(header: Dataset) -> float | None:
    """Stated, or as Siemens writes it into the sequence name (``*ep_b800t``) of its classic diffusion images."""
    stated = values.number(header, "DiffusionBValue")
    if stated is None and (named := _SIEMENS_B.search(values.text(header, "SequenceName"))):
        return float(named[1])
    return stated


def _enhanced_stack(group: tuple[Dataset | None, Dataset | None]) -> str:
    content = macro(group, "FrameContentSequence")
    echo = macro(group, "MREchoSequence")
    diffusion = macro(group, "MRDiffusionSequence")
    kind = macro(group, "MRImageFrameTypeSequence") or macro(group, "CTImageFrameTypeSequence")
    stack = values.text(content, "StackID") if content is not None else ""
    time = values.number(content, "TemporalPositionIndex") if content is not None else None
    facts: list[tuple[str, float | str | None]] = [
        ("stack", stack if stack.isalnum() and (len(stack) <= 2 or stack.isdecimal()) else None),
        ("echo", values.number(echo, "EffectiveEchoTime") if echo is not None else None),
        ("b", values.number(diffusion, "DiffusionBValue") if diffusion is not None else None),
        ("type", _frame_contrast(kind)),
        ("t", time),
    ]
    return _join(facts)


def _contrast_type(image_type: Sequence[str]) -> str | None:
    """The part of an ImageType that makes another picture of the same slice: magnitude or phase, Dixon water or fat."""
    named = [each for each in image_type[2:] if each in _CONTRAST_FRAME_TYPES or each in _DIXON]
    return "+".join(named) or None


def _frame_contrast(kind: Dataset | None) -> str | None:
    """Complex Image Component (PS3.3 C.8.13.3.1) where it tells magnitude from phase, else as in an ImageType."""
    if kind is None:
        return None
    component = values.text(kind, "ComplexImageComponent")
    return component if component in _COMPLEX else _contrast_type(values.texts(kind, "FrameType"))


def _join(facts: Iterable[tuple[str, float | str | None]]) -> str:
    shown = ((name, f"{fact:g}" if isinstance(fact, float) else fact) for name, fact in facts)
    return ";".join(f"{name}={fact}" for name, fact in shown if fact is not None)
