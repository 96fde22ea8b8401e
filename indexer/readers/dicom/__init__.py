"""DICOM: headers into Scans, pixels into Images (PS3.3, PS3.5, PS3.10), by pydicom and its decoders.

A file is walked once for its structure (``dicom_structure``), which also picks out the few elements that are wanted;
only those are given to pydicom. Objects without pictures (reports, plans, doses, segmentations, presentation states)
give a Scan with no frames and a warning that says what they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import BinaryIO

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from indexer import pixels as px
from indexer.geometry import position_along
from indexer.limits import Limits
from indexer.readers.bytes import digest, open_unpacked
from indexer.readers.dicom import values
from indexer.readers.dicom.attributes import attributes_of, declared_labels, modality_of
from indexer.readers.dicom.codecs import PixelFormat
from indexer.readers.dicom.frames import FrameBytes, format_of
from indexer.readers.dicom.geometry import frame_groups, planes_of, spacing_of
from indexer.readers.dicom.meaning import meaning, rescale_of
from indexer.readers.dicom.mosaic import COUNT_TAG, CSA_TAG, Mosaic, is_mosaic, mosaic_of
from indexer.readers.dicom.recent import Recent
from indexer.readers.dicom.structure import Structure, looks_like_dicom, walk
from indexer.readers.dicom.words import IMAGE_TYPES
from indexer.sources import SPATIAL, Plane, Scan, Source
from retrieval.errors import LimitExceeded, RejectedInput
from retrieval.types import Attributes, Image

_WANTED_KEYWORDS = """
SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID StudyDate Modality Manufacturer ScanningSequence SequenceName
AcquisitionContrast ContrastBolusAgent PatientID IssuerOfPatientID PatientBirthDate PatientSex PatientAge
BodyPartExamined ViewPosition Laterality ImageLaterality FrameLaterality SliceThickness SpacingBetweenSlices
EchoNumbers DiffusionBValue TemporalPositionIdentifier StudyInstanceUID SeriesInstanceUID InstanceNumber
ImagePositionPatient ImageOrientationPatient SamplesPerPixel PhotometricInterpretation PlanarConfiguration
NumberOfFrames Rows Columns PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing BitsAllocated BitsStored
PixelRepresentation WindowCenter WindowWidth RescaleIntercept RescaleSlope ModalityLUTSequence
RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor
RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData
SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData
SegmentedBluePaletteColorLookupTableData DetectorInformationSequence SharedFunctionalGroupsSequence
PerFrameFunctionalGroupsSequence LUTDescriptor LUTData
PlanePositionSequence PlaneOrientationSequence PixelMeasuresSequence PixelValueTransformationSequence
FrameVOILUTSequence FrameContentSequence StackID TemporalPositionIndex MREchoSequence EffectiveEchoTime
MRDiffusionSequence MRImageFrameTypeSequence CTImageFrameTypeSequence FrameType ComplexImageComponent
"""
_SEQUENCES = (
    "ModalityLUTSequence", "DetectorInformationSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
WANTED = frozenset({tag_for_keyword(each) or 0 for each in _WANTED_KEYWORDS.split()} | {COUNT_TAG, CSA_TAG})

_NOT_PICTURES = (
    "RT Dose",
    "RT Plan",
    "RT Structure",
    "Segmentation",
    "Presentation State",
    "Waveform",
    "Spectroscopy",
    "Raw Data",
    "Fiducials",
)
_REMEMBERED = 256  # headers that a scan has parsed and a read, soon after, need not
_REMEMBERED_BYTES = 64 << 10  # of a header; larger ones are parsed again
_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file with pictures, ready to hand out frames."""

    header: Dataset
    frames: FrameBytes
    modality: str
    spacing: tuple[float, float] | None
    planes: tuple[Plane, ...]
    mosaic: Mosaic | None
    warnings: tuple[str, ...]
    groups: list[tuple[Dataset | None, Dataset | None]] = field(default_factory=list)

    @property
    def form(self) -> PixelFormat:
        return self.frames.form

    @property
    def count(self) -> int:
        return self.mosaic.count if self.mosaic else self.form.frames


class DicomReader:
    """Reads what PS3.10 calls a DICOM file, and bare data sets without preamble or file meta."""

    format = "dicom"

    def __init__(self) -> None:
        self._recent: Recent[_Opened] = Recent(_REMEMBERED)

    def can_read(self, head: bytes, name: str) -> bool:
        return looks_like_dicom(head)

    def scan(self, source: Source, limits: Limits) -> Scan:
        """The header as a Scan. Raises RejectedInput or LimitExceeded (stage "scan")."""
        with open_unpacked(source, limits) as file:
            structure, header = _read_header(file, limits)
            opened = None if (kind := _pictureless(structure, header)) else _open(structure, header, limits)
            if opened is not None and structure.stream is file and len(structure.kept) <= _REMEMBERED_BYTES:
                self._recent.put(file, opened)
        with values.quiet():
            scan = _scan_of(source, header, attributes_of(header), *digest(source, limits))
            declared = declared_labels(header) if opened else ()
        if opened is None:
            return replace(scan, warnings=(f"No pixels: this is a {kind}, not an image.",))
        return replace(
            scan,
            frames=opened.count,
            rows=opened.mosaic.rows if opened.mosaic else opened.form.rows,
            columns=opened.mosaic.columns if opened.mosaic else opened.form.columns,
            spacing=opened.spacing,
            planes=opened.planes,
            volumetric=bool(opened.planes) and (opened.modality in SPATIAL or opened.count > 1),
            declared=declared,
            warnings=opened.warnings,
        )

    def read(self, source: Source, frames: Sequence[int] | None, limits: Limits) -> Iterator[tuple[int, Image]]:
        """Decode the frames asked for. Raises RejectedInput (stage "decode" once the header is through)."""
        with open_unpacked(source, limits) as file:
            opened = self._recent.get(file)
            opened = replace(opened, frames=opened.frames.of(file)) if opened else _opened(file, limits)
            wanted = range(opened.count) if frames is None else frames
            for index in wanted:
                if not 0 <= index < opened.count:
                    raise RejectedInput("decode", f"Frame {index} was asked for, the file has {opened.count}.")
                yield index, _image(opened, index)


def _scan_of(source: Source, header: Dataset, attributes: Attributes, sha256: str, size: int) -> Scan:
    """What the header says, whether or not there are pictures."""
    return Scan(
        source, DicomReader.format, sha256, size,
        frames=0,
        attributes=attributes,
        patient_id=values.text(header, "PatientID"),
        issuer=values.text(header, "IssuerOfPatientID"),
        study_uid=values.uid(header, "StudyInstanceUID"),
        series_uid=values.uid(header, "SeriesInstanceUID"),
        sop_uid=values.uid(header, "SOPInstanceUID"),
        instance_number=values.integer(header, "InstanceNumber"),
        image_type=tuple(each for each in values.texts(header, "ImageType")[:16] if each in IMAGE_TYPES),
    )  # fmt: skip


def _read_header(file: BinaryIO, limits: Limits) -> tuple[Structure, Dataset]:
    structure = walk(file, WANTED, limits)
    if not structure.kept and structure.pixels is None and not structure.media_class:
        raise RejectedInput("scan", "The file has the mark of DICOM but no data set in it: it is empty or cut short.")
    try:
        with values.quiet():
            header = read_dataset(BytesIO(structure.kept), structure.implicit, structure.little)
            for keyword in _SEQUENCES:
                values.items(header, keyword)  # parsed on first access: here, inside the guard
    except RecursionError as error:
        raise LimitExceeded("scan", f"Sequences are nested deeper than {limits.nesting} levels (nesting).") from error
    except Exception as error:
        raise RejectedInput("scan", "The DICOM header can't be parsed: it is damaged.") from error
    return structure, header


def _pictureless(structure: Structure, header: Dataset) -> str:
    """What an object without pictures is called, or "" for an image. An image whose pixels are missing is refused."""
    with values.quiet():
        found = values.uid(header, "SOPClassUID") or structure.media_class
    name = values.uid_name(found) if found else ""
    if structure.media_class == _DIRECTORY:
        return "DICOM directory (DICOMDIR)"
    known = name if name != found else ""
    if any(word in known for word in _NOT_PICTURES):
        return known
    if structure.pixels is not None:
        return ""
    if "Image Storage" in known:
        raise RejectedInput("scan", f"This {known} file has no pixel data: it was stripped or cut short.")
    return known or "DICOM object without pixel data"


def _opened(file: BinaryIO, limits: Limits) -> _Opened:
    structure, header = _read_header(file, limits)
    if kind := _pictureless(structure, header):
        raise RejectedInput("decode", f"No pixels: this is a {kind}, not an image.")
    return _open(structure, header, limits)


def _open(structure: Structure, header: Dataset, limits: Limits) -> _Opened:
    if structure.pixels is None:
        raise RejectedInput("scan", "The file has no pixel data.")
    with values.quiet():
        frames = FrameBytes(structure, format_of(header, structure.pixels, limits), limits)
        count = frames.form.frames
        groups = frame_groups(header, count)
        spacing = spacing_of(header, groups[0] if groups else None)
        warnings = list(frames.warnings)
        mosaic = None
        if is_mosaic(header) and count == 1:
            mosaic = mosaic_of(header, frames.form.rows, frames.form.columns, spacing)
            if mosaic is None:
                warnings.append(
                    "A mosaic of slices is kept as one picture: its header does not say how to take it apart."
                )
        planes = mosaic.planes if mosaic else () if is_mosaic(header) else planes_of(header, count)
        modality = modality_of(header)
        if modality == "CT" and frames.form.samples == 1 and not _states_rescale(header, groups):
            warnings.append("The CT states no rescale: its values may not be Hounsfield units.")
    return _Opened(header, frames, modality, spacing, planes, mosaic, tuple(warnings), groups)


def _states_rescale(header: Dataset, groups: list[tuple[Dataset | None, Dataset | None]]) -> bool:
    found = rescale_of(header, groups[0] if groups else None)
    stated = values.number(header, "RescaleSlope") is not None or bool(groups)
    return stated or found.table is not None


def _image(opened: _Opened, index: int) -> Image:
    """One frame, decoded, rescaled, the right way up."""
    stored_index = 0 if opened.mosaic else index
    group = opened.groups[stored_index] if opened.groups else None
    with values.quiet():
        stored, photometric = opened.frames.decode(stored_index)
        found, window = meaning(stored, photometric, opened.form, opened.header, group, opened.modality)
        spacing = spacing_of(opened.header, group)
        sop_uid = values.uid(opened.header, "SOPInstanceUID")
    if opened.mosaic:
        found = opened.mosaic.tile(found, index)
    position, plane = None, ""
    if opened.planes:
        at = opened.planes[index]
        found, spacing, plane = px.to_radiological(found, at.row, at.column, spacing)
        position = position_along(at.position, at.row, at.column)
    return Image(found, opened.modality, spacing, position, window, plane, sop_uid, stored_index + 1)
