"""DICOM files made from arrays, for tests: plain pydicom, seeded, no patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
US_LOOP = "1.2.840.10008.5.1.4.1.1.3.1"
SC = "1.2.840.10008.5.1.4.1.1.7"
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"

AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
CORONAL = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]
SAGITTAL = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]


def uid(*numbers: int) -> str:
    return "1.2.826.0.1.3680043.8.498." + ".".join(str(each) for each in numbers)


def dataset(
    pixels: np.ndarray | None = None, *, sop_class: str = CT, modality: str = "CT", **elements: Any
) -> FileDataset:
    """A data set around stored values [rows, columns], [frames, rows, columns] or [rows, columns, 3]."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(elements.get("SOPInstanceUID", uid(1)))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = uid(7), uid(8)
    made.Modality = modality
    if pixels is not None:
        _put_pixels(made, pixels)
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def _put_pixels(made: Dataset, pixels: np.ndarray) -> None:
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    made.SamplesPerPixel = 3 if colour else 1
    made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        made.PlanarConfiguration = 0
    if pixels.ndim == 3 and not colour:
        made.NumberOfFrames = len(pixels)
    made.Rows, made.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    made.BitsAllocated = made.BitsStored = 8 * pixels.itemsize
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.tobytes()
    made.PixelData = data + b"\x00" * (len(data) % 2)
    made["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"


def save(made: FileDataset, path: Path) -> Path:
    made.save_as(path, enforce_file_format=True)
    return path


def ct_slice(
    position: tuple[float, float, float], *, instance: int = 1, orientation: list[float] = AXIAL, size: int = 8,
    seed: int = 0, **elements: Any,
) -> FileDataset:  # fmt: skip
    """One CT slice, stored unsigned 12-bit with an intercept of -1024."""
    stored = np.random.default_rng((seed, instance)).integers(0, 4096, (size, size), dtype=np.uint16)
    defaults = {
        "SOPInstanceUID": uid(9, seed, instance), "InstanceNumber": instance, "BitsStored": 12, "HighBit": 11,
        "RescaleSlope": 1, "RescaleIntercept": -1024, "ImagePositionPatient": list(position),
        "ImageOrientationPatient": orientation, "PixelSpacing": [0.7, 0.5], "SliceThickness": 3,
    }  # fmt: skip
    return dataset(stored, **{**defaults, **elements})


def _item(**elements: Any) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def enhanced_mr(pixels: np.ndarray, groups: list[dict[str, Any]], orientation: list[float] = AXIAL) -> FileDataset:
    """``groups``: per frame position, and optionally slope, intercept, window, time, b, echo."""
    made = dataset(pixels, sop_class=ENHANCED_MR, modality="MR")
    measures = _item(PixelSpacing=[2.0, 1.0], SliceThickness=3.0)
    plane = _item(ImageOrientationPatient=orientation)
    made.SharedFunctionalGroupsSequence = Sequence(
        [_item(PixelMeasuresSequence=Sequence([measures]), PlaneOrientationSequence=Sequence([plane]))]
    )
    made.PerFrameFunctionalGroupsSequence = Sequence([_frame_group(**group) for group in groups])
    return made


def _frame_group(
    position: tuple[float, float, float], slope: float = 1.0, intercept: float = 0.0,
    window: tuple[float, float] | None = None, time: int | None = None, b: float | None = None,
    echo: float | None = None,
) -> Dataset:  # fmt: skip
    group = _item(
        PlanePositionSequence=Sequence([_item(ImagePositionPatient=list(position))]),
        PixelValueTransformationSequence=Sequence(
            [_item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US")]
        ),
    )
    if window is not None:
        group.FrameVOILUTSequence = Sequence([_item(WindowCenter=window[0], WindowWidth=window[1])])
    if time is not None:
        group.FrameContentSequence = Sequence([_item(TemporalPositionIndex=time)])
    if b is not None:
        group.MRDiffusionSequence = Sequence([_item(DiffusionBValue=b)])
    if echo is not None:
        group.MREchoSequence = Sequence([_item(EffectiveEchoTime=echo)])
    return group
