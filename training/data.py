"""The frames that are learnt from: the train parts of the sets whose licences allow weights to be shipped."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from retrieval.encoders.recipe import Bytes, Recipe, fit, window
from retrieval.types import Image

ALLOWED = ("cxr_kermany", "cxr_nih", "xray_knee_kl", "micro_bccd", "mri2d_cardiac_sunnybrook", "oct_mini")
_REPORT_LIMIT = 1 << 24  # characters of a cell: reports are long


@dataclass(frozen=True, slots=True)
class Frame:
    """One labelled frame. ``patient`` is unique over all sets."""

    pixels: Bytes
    of_set: str
    label: str
    patient: str


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames and what is asked of them. ``labels``: an index into the classes of the frame's own set."""

    pixels: npt.NDArray[np.uint8]  # [n, side, side, 3]
    of_set: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    patients: tuple[str, ...]
    sets: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]  # of each set, sorted: grades rise

    def __len__(self) -> int:
        return len(self.patients)

    def part(self, chosen: npt.NDArray[np.bool_]) -> Frames:
        patients = tuple(patient for patient, keep in zip(self.patients, chosen, strict=True) if keep)
        return Frames(self.pixels[chosen], self.of_set[chosen], self.labels[chosen], patients, self.sets, self.classes)


def read_sets(folder: Path, recipe: Recipe, sets: Sequence[str] = ALLOWED, split: str = "train") -> Frames:
    """The frames of one split of the sets under ``folder`` (FOLDER/SET/labels.csv), as ``recipe`` fits them."""
    found = [frame for name in sets for frame in _read(folder / name, recipe, split)]
    return gather(found)


def gather(found: Sequence[Frame]) -> Frames:
    sets = tuple(dict.fromkeys(frame.of_set for frame in found))
    classes = tuple(tuple(sorted({frame.label for frame in found if frame.of_set == name})) for name in sets)
    return Frames(
        pixels=np.stack([frame.pixels for frame in found]),
        of_set=np.array([sets.index(frame.of_set) for frame in found], np.int64),
        labels=np.array([classes[sets.index(frame.of_set)].index(frame.label) for frame in found], np.int64),
        patients=tuple(frame.patient for frame in found),
        sets=sets,
        classes=classes,
    )


def held_out(frames: Frames, fold: int, folds: int) -> npt.NDArray[np.bool_]:
    """Which frames are of the patients of one fold; a patient is in one fold alone, whatever else is in the data."""
    places = [int(hashlib.sha256(patient.encode()).hexdigest()[:8], 16) % folds for patient in frames.patients]
    return np.asarray(np.array(places) == fold)


def _read(folder: Path, recipe: Recipe, split: str) -> Iterator[Frame]:
    csv.field_size_limit(_REPORT_LIMIT)
    table = folder / "labels.csv"
    if not table.is_file():
        raise SystemExit(
            f"Expected the labelled set {folder.name} at {table}, found none: name its folder by --shared."
        )
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                yield Frame(
                    pixels=as_colour(fit(recipe, window(recipe, Image(_pixels(folder / row["path"]))))),
                    of_set=folder.name,
                    label=row["label"],
                    patient=f"{folder.name}/{row['patient_id'] or row['path']}",
                )


def as_colour(frame: Bytes) -> Bytes:
    return frame if frame.ndim == 3 else np.repeat(frame[:, :, None], 3, axis=2)


def _pixels(path: Path) -> Bytes:
    with PillowImage.open(path) as opened:
        return np.asarray(opened if opened.mode in ("L", "RGB") else opened.convert("RGB"))
