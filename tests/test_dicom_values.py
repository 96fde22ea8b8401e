"""Codes are read as they stand in the file; what comes out is what pydicom makes of them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from indexer.readers.dicom import values

WHEEL = Path(pydicom.__file__).parent / "data" / "test_files"
KEYWORDS = (
    "Modality",
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "ImageType",
    "StudyDate",
    "ContentTime",
    "PhotometricInterpretation",
    "PatientSex",
    "BodyPartExamined",
    "StationAETitle",
    "PatientAge",
)
NUMBERS = (
    "Rows", "BitsStored", "PixelRepresentation", "PixelSpacing", "WindowCenter", "InstanceNumber", "RescaleSlope",
)  # fmt: skip


def by_pydicom(header: Dataset, keyword: str) -> tuple[str, ...]:
    if keyword in header:
        header[keyword]  # converts the element
        assert not isinstance(header.get_item(keyword), RawDataElement)
    return values.texts(header, keyword)


def read(file: Path) -> Dataset:
    return pydicom.dcmread(file, stop_before_pixels=True, force=True)


@pytest.fixture(scope="module")
def files() -> list[tuple[str, Dataset, Dataset]]:
    """Every file of the wheel by name, its header twice: one to be read as it stands, one for pydicom to convert."""
    with values.quiet():
        return [(file.name, read(file), read(file)) for file in sorted(WHEEL.glob("*.dcm"))]


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_codes_of_real_files(keyword: str, files: list[tuple[str, Dataset, Dataset]]) -> None:
    met = 0
    for name, raw, converted in files:
        with values.quiet():
            expected = by_pydicom(converted, keyword)
            assert values.texts(raw, keyword) == expected, name
            met += bool(expected)
    assert met >= 1 or keyword == "StationAETitle"


@pytest.mark.parametrize("keyword", NUMBERS)
def test_numbers_of_real_files(keyword: str, files: list[tuple[str, Dataset, Dataset]]) -> None:
    met = 0
    for name, raw, converted in files:
        with values.quiet():
            by_pydicom(converted, keyword)
            expected = values.numbers(converted, keyword)
            assert values.numbers(raw, keyword) == expected, name
            met += bool(expected)
    assert met >= 1


@pytest.mark.parametrize(
    ("vr", "stored", "little", "numbers"),
    [
        ("US", b"\x01\x02", True, (513.0,)),
        ("US", b"\x01\x02", False, (258.0,)),
        ("US", b"\x01\x00\x02\x00", True, (1.0, 2.0)),
        ("US", b"", True, ()),
        ("DS", b"1.5\\ -2e3 ", True, (1.5, -2000.0)),
        ("DS", b"1.5\\", True, ()),
        ("DS", b"1,5 ", True, ()),
        ("DS", b"nan ", True, ()),
        ("IS", b"12\0 ", True, (12.0,)),
    ],
)
def test_numbers_as_they_are_stored(vr: str, stored: bytes, little: bool, numbers: tuple[float, ...]) -> None:
    header = Dataset()
    header[0x00280030] = RawDataElement(pydicom.tag.Tag(0x00280030), vr, len(stored), stored, 0, False, little)
    with values.quiet():
        assert values.numbers(header, "PixelSpacing") == numbers


@pytest.mark.parametrize("stored", ["CT", " CT ", "A\\B\\\\C", "\\", "A\0"])
def test_codes_however_they_are_padded(stored: str) -> None:
    header = Dataset()
    with values.quiet():
        header.add_new(0x00080008, "CS", stored.split("\\"))
        written = BytesIO()
        dcmwrite(written, header, implicit_vr=False, little_endian=True, enforce_file_format=False)
        raw, converted = (pydicom.dcmread(BytesIO(written.getvalue()), force=True) for _ in range(2))
        assert values.texts(raw, "ImageType") == by_pydicom(converted, "ImageType")


def test_codes_that_are_not_ascii_are_left_to_pydicom() -> None:
    header = Dataset()
    header[0x00080060] = RawDataElement(pydicom.tag.Tag(0x00080060), "CS", 2, b"\xc4x", 0, False, True)
    with values.quiet():
        assert values.texts(header, "Modality") == by_pydicom(header, "Modality")
