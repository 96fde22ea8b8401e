"""Phantoms as files: valid DICOM instances and series, NIfTI, PNG. The same phantom gives the same bytes."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MRImageStorage,
    UltrasoundImageStorage,
)

from indexer.demo.findings import Picture, Volume
from indexer.demo.roster import Exam
from retrieval.types import Pixels

_CLASSES = {
    "DX": DigitalXRayImageStorageForPresentation,
    "MG": DigitalMammographyXRayImageStorageForPresentation,
    "US": UltrasoundImageStorage,
    "CT": CTImageStorage,
    "MR": MRImageStorage,
}
_HU_OFFSET = -1024
_WINDOWS = {"CHEST": (-500, 1500), "ABDOMEN": (60, 400), "HEAD": (40, 90)}


def uid(*names: object) -> UID:
    """A UID that depends on the names alone, under the UUID root (PS3.5 B.2)."""
    digest = hashlib.sha256("\x1f".join(map(str, ("precedent phantom", *names))).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def write_picture(path: Path, exam: Exam, picture: Picture, seed: int) -> None:
    """One 2D DICOM instance; radiographs of every other patient are stored inverted, as MONOCHROME1."""
    series = (seed, exam.patient.patient_id, exam.study, exam.image, exam.modality)
    ds = _header(exam, seed, series, instance=1)
    pixels: npt.NDArray[Any] = picture.pixels
    if pixels.ndim == 3:
        ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PhotometricInterpretation = 3, 0, "RGB"
    else:
        inverted = exam.modality == "DX" and exam.patient.number % 2 == 1
        if inverted:
            pixels = ((1 << picture.bits) - 1 - pixels).astype(pixels.dtype)
        ds.SamplesPerPixel = 1
        ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
        ds.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
        ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", 1
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
        ds.BurnedInAnnotation = "NO"
        ds.ImagerPixelSpacing = _mm(picture.spacing)
    ds.PixelSpacing = _mm(picture.spacing)
    _put_pixels(ds, pixels, picture.bits)
    _save(ds, path)


def write_series(folder: Path, exam: Exam, volume: Volume, seed: int) -> None:
    """An axial series, one instance a slice, numbered from the head down as many scanners do."""
    folder.mkdir(parents=True, exist_ok=True)
    series = (seed, exam.patient.patient_id, exam.study, exam.image, exam.modality)
    count, rows, columns = volume.voxels.shape
    thick, *in_plane = volume.spacing
    for index, plane in enumerate(volume.voxels):
        number = count - index
        ds = _header(exam, seed, series, instance=number)
        ds.FrameOfReferenceUID = uid(seed, exam.patient.patient_id, exam.study, "frame of reference")
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        corner = (-columns / 2 * in_plane[1], -rows / 2 * in_plane[0], thick * (index - count / 2))
        ds.ImagePositionPatient = _mm(corner)
        ds.SliceThickness, ds.PixelSpacing = f"{thick:.6g}", _mm(in_plane)
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        if exam.modality == "CT":
            ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = _HU_OFFSET, 1, "HU"
            ds.WindowCenter, ds.WindowWidth = _WINDOWS[exam.body_part]
            plane = plane - _HU_OFFSET
        else:
            ds.ScanningSequence, ds.SequenceVariant, ds.SeriesDescription = "SE", "NONE", exam.kind
        _put_pixels(ds, np.clip(plane, 0, 4095).astype(np.uint16), 12)
        _save(ds, folder / f"{number:04d}.dcm")


def write_nifti(path: Path, volume: Volume) -> None:
    """A .nii.gz in RAS millimetres; the gzip header carries no time, so the bytes depend on the voxels alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    thick, down, across = volume.spacing
    voxels = np.ascontiguousarray(volume.voxels.transpose(2, 1, 0))
    affine = np.diag([-across, -down, thick, 1.0])  # rows and columns run to the left and posterior: minus in RAS
    affine[:3, 3] = [across * voxels.shape[0] / 2, down * voxels.shape[1] / 2, -thick * voxels.shape[2] / 2]
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm", "sec")
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=5, mtime=0))


def write_png(path: Path, picture: Picture) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(picture.pixels).save(path)


def _header(exam: Exam, seed: int, series: tuple[object, ...], instance: int) -> Dataset:
    """Everything but the pixels: patient, study, series, instance."""
    patient = exam.patient
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = _CLASSES[exam.modality], uid(*series, instance)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(seed, patient.patient_id, exam.study), uid(*series)
    ds.PatientName = f"Phantom^{patient.programme.replace('_', ' ').title()}"
    ds.PatientID, ds.PatientSex, ds.PatientAge = patient.patient_id, patient.sex, f"{patient.age:03d}Y"
    ds.PatientBirthDate, ds.PatientComments = "", "Synthetic phantom, not a person"
    year, month = 2020 + exam.study, 1 + patient.number % 12
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = f"{year}{month:02d}15", "101500", str(exam.study), ""
    ds.ReferringPhysicianName = ""
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = exam.modality, exam.image + 1, instance
    ds.Manufacturer, ds.ManufacturerModelName = "Precedent", "Phantom"
    ds.BodyPartExamined = exam.body_part
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if exam.modality in {"CT", "MR"} else ["ORIGINAL", "PRIMARY"]
    if exam.view:
        ds.ViewPosition = exam.view
    if exam.side:
        ds.ImageLaterality = exam.side
    if exam.modality in {"DX", "MG"}:
        ds.PresentationIntentType = "FOR PRESENTATION"
    ds.PatientOrientation = _orientation(exam)
    return ds


def _orientation(exam: Exam) -> list[str]:
    """Towards which side of the body rows and columns run (PS3.3 C.7.6.1.1.1)."""
    if exam.view == "LL":
        return ["P", "F"]
    if exam.modality == "MG":
        return ["A" if exam.side == "L" else "P", "F"]
    return ["L", "F"] if exam.modality == "DX" else ["L", "P"]


def _put_pixels(ds: Dataset, pixels: Pixels, bits: int) -> None:
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, 0
    data = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes()
    ds.PixelData = data + b"\x00" * (len(data) % 2)


def _mm(values: tuple[float, ...] | list[float]) -> list[str]:
    """Decimal strings of at most 16 characters."""
    return [f"{value:.6g}" for value in values]


def _save(ds: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
