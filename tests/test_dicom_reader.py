"""The DICOM reader on files made to measure, where every value is known, and on pydicom's own real files."""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.sequence import Sequence
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless

from indexer.limits import Limits
from indexer.readers.base import HEAD_BYTES
from indexer.readers.dicom import DicomReader
from indexer.readers.dicom.codecs import PixelFormat, decode
from indexer.sources import Scan, Source
from retrieval.errors import RejectedInput
from retrieval.types import Image
from tests.dicom_files import (
    AXIAL,
    CORONAL,
    DX,
    REPORT,
    SAGITTAL,
    SC,
    US_LOOP,
    ct_slice,
    dataset,
    enhanced_mr,
    save,
)  # fmt: skip

READER = DicomReader()
LIMITS = Limits()
RNG = np.random.default_rng(11)


def scan(path: Path) -> Scan:
    assert READER.can_read(path.read_bytes()[:HEAD_BYTES], path.name)
    return READER.scan(Source(path), LIMITS)


def read(path: Path, frames: list[int] | None = None) -> list[Image]:
    return [image for _, image in READER.read(Source(path), frames, LIMITS)]


def real(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return Path(found)


def test_ct_is_in_hounsfield_units_once(tmp_path: Path) -> None:
    made = ct_slice((0, 0, 30), WindowCenter=[40, 600], WindowWidth=[400, 2000])
    path = save(made, tmp_path / "a.dcm")
    (image,) = read(path)
    assert image.pixels.dtype == np.int16
    assert np.array_equal(image.pixels, made.pixel_array.astype(int) - 1024)
    assert image.window == (40.0, 400.0)
    assert (image.spacing, image.position_mm, image.plane) == ((0.7, 0.5), 30.0, "axial")
    found = scan(path)
    assert (found.frames, found.rows, found.columns, found.volumetric) == (1, 8, 8, True)
    assert found.warnings == ()


def test_real_ct_and_mr_match_their_stored_values() -> None:
    header = pydicom.dcmread(real("CT_small.dcm"))
    (image,) = read(real("CT_small.dcm"))
    assert np.array_equal(image.pixels, header.pixel_array.astype(int) * int(header.RescaleSlope) - 1024)
    assert image.pixels.dtype == np.int16
    reference = pydicom.dcmread(real("MR_small.dcm")).pixel_array
    for name in ("", "_RLE", "_bigendian", "_expb", "_implicit", "_jp2klossless", "_jpeg_ls_lossless", "_padded"):
        (image,) = read(real(f"MR_small{name}.dcm"))
        assert np.array_equal(image.pixels, reference), name


@pytest.mark.parametrize("slope", [1, 2])
def test_monochrome1_is_inverted_and_its_window_too(tmp_path: Path, slope: int) -> None:
    stored = RNG.integers(0, 4096, (6, 5), dtype=np.uint16)
    made = dataset(
        stored, sop_class=DX, modality="DX", PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11,
        RescaleSlope=slope, RescaleIntercept=10, WindowCenter=1000, WindowWidth=500, ImagerPixelSpacing=[0.1, 0.2],
    )  # fmt: skip
    (image,) = read(save(made, tmp_path / "a.dcm"))
    assert np.array_equal(image.pixels, slope * (4095 - stored.astype(int)) + 10)
    assert image.window == (slope * 4095 + 20 - 1000 + 1, 500)
    assert image.spacing == (0.1, 0.2)
    assert image.position_mm is None


def test_monochrome1_ct_keeps_hounsfield_units(tmp_path: Path) -> None:
    made = ct_slice((0, 0, 0), PhotometricInterpretation="MONOCHROME1")
    (image,) = read(save(made, tmp_path / "a.dcm"))
    assert np.array_equal(image.pixels, made.pixel_array.astype(int) - 1024)


def test_signed_values_with_unused_bits(tmp_path: Path) -> None:
    """12 bits of two's complement in 16, the upper four holding rubbish (PS3.5 8.1.1)."""
    values = np.array([[-2048, -1, 0, 2047]], np.int16)
    rubbish = (values.view(np.uint16) & 0x0FFF) | 0x5000
    made = dataset(rubbish, modality="MR", PixelRepresentation=1, BitsStored=12, HighBit=11)
    (image,) = read(save(made, tmp_path / "a.dcm"))
    assert image.pixels.tolist() == values.tolist()


def test_32_bit_and_float_pixels(tmp_path: Path) -> None:
    wide = np.array([[0, 70000], [5, 2**24]], np.uint32)
    (image,) = read(save(dataset(wide, modality="NM"), tmp_path / "a.dcm"))
    assert image.pixels.dtype == np.float32
    assert image.pixels.tolist() == wide.tolist()
    made = dataset(np.zeros((2, 2), np.uint16), modality="MR", RescaleSlope=2, RescaleIntercept=0)
    del made.PixelData, made.BitsStored, made.HighBit, made.PixelRepresentation
    made.BitsAllocated, made.FloatPixelData = 32, np.array([0.5, 1.5, -2.0, 4.0], "<f4").tobytes()
    (image,) = read(save(made, tmp_path / "b.dcm"))
    assert image.pixels.tolist() == [[1.0, 3.0], [-4.0, 8.0]]


def test_one_bit_frames_that_share_bytes(tmp_path: Path) -> None:
    bits = RNG.integers(0, 2, (3, 3, 5), dtype=np.uint8)
    made = dataset(bits, sop_class=SC, modality="OT", BitsAllocated=1, BitsStored=1, HighBit=0)
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    made.PixelData = packed + b"\x00" * (len(packed) % 2)
    found = read(save(made, tmp_path / "a.dcm"), [2, 0])
    assert np.array_equal(found[0].pixels, bits[2])
    assert np.array_equal(found[1].pixels, bits[0])


def test_modality_table_is_applied(tmp_path: Path) -> None:
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData, lut.ModalityLUTType = [4, 2, 16], np.array([10, 20, 30, 40], "<u2").tobytes(), "US"
    made = dataset(np.array([[0, 2, 3, 9]], np.uint16), modality="CR", ModalityLUTSequence=Sequence([lut]))
    (image,) = read(save(made, tmp_path / "a.dcm"))
    assert image.pixels.tolist() == [[10, 10, 20, 40]]


def test_colour_palette_and_ybr_match_pydicom() -> None:
    from pydicom.pixels import apply_color_lut

    header = pydicom.dcmread(real("examples_palette.dcm"))
    expected = apply_color_lut(header.pixel_array, header)
    (image,) = read(real("examples_palette.dcm"))
    assert np.array_equal(image.pixels, expected >> 8 if expected.dtype == np.uint16 else expected)
    for name in ("SC_rgb_small_odd_big_endian.dcm", "SC_rgb_rle_2frame.dcm", "ExplVR_BigEnd.dcm", "SC_rgb_gdcm_KY.dcm"):
        expected = pydicom.dcmread(real(name)).pixel_array
        found = np.squeeze(np.stack([image.pixels for image in read(real(name))]))
        assert np.array_equal(found, expected), name
    for name in ("SC_ybr_full_422_uncompressed.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm", "examples_ybr_color.dcm"):
        expected = np.atleast_3d(pydicom.dcmread(real(name)).pixel_array)
        first = expected[0] if expected.ndim == 4 else expected
        assert np.abs(read(real(name), [0])[0].pixels.astype(int) - first).max() <= 1, name


def test_16_bit_colour_becomes_8(tmp_path: Path) -> None:
    colour = np.array([[[0, 0x8000, 0xFFFF]]], np.uint16)
    (image,) = read(save(dataset(colour, sop_class=SC, modality="XC"), tmp_path / "a.dcm"))
    assert image.pixels.dtype == np.uint8
    assert image.pixels.tolist() == [[[0, 128, 255]]]


def test_12_bit_lossy_jpeg_and_8_bit_jpeg() -> None:
    (image,) = read(real("JPGExtended.dcm"))
    assert image.pixels.dtype == np.uint16
    assert 255 < image.pixels.max() <= 4095
    (image,) = read(real("SC_rgb_jpeg_dcmtk.dcm"))
    assert np.abs(image.pixels[5, 50].astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_frames_decode_alone(tmp_path: Path, syntax: str) -> None:
    made = dataset(RNG.integers(0, 4096, (4, 64, 48), dtype=np.uint16), sop_class=US_LOOP, modality="US")
    frames = made.pixel_array
    if syntax == RLELossless:
        made.compress(syntax)
    else:
        made.compress(syntax, encoding_plugin="pylibjpeg" if syntax == JPEG2000Lossless else "pyjpegls")
    path = save(made, tmp_path / "a.dcm")
    assert scan(path).frames == 4
    found = read(path, [3, 1])
    assert np.array_equal(found[0].pixels, frames[3])
    assert np.array_equal(found[1].pixels, frames[1])
    assert [image.frame_number for image in found] == [4, 2]


def test_a_frame_in_many_fragments(tmp_path: Path) -> None:
    made = dataset(RNG.integers(0, 255, (2, 32, 32), dtype=np.uint8), sop_class=US_LOOP, modality="US")
    frames = made.pixel_array
    made.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg")
    coded = list(pydicom.encaps.generate_frames(made.PixelData, number_of_frames=2))
    for has_table in (True, False):
        made.PixelData = encapsulate(coded, fragments_per_frame=3, has_bot=has_table)
        made["PixelData"].is_undefined_length = True
        found = read(save(made, tmp_path / f"{has_table}.dcm"))
        assert all(np.array_equal(image.pixels, frame) for image, frame in zip(found, frames, strict=True))


def test_enhanced_frames_have_their_own_place_scale_and_window(tmp_path: Path) -> None:
    stored = RNG.integers(0, 1000, (3, 4, 6), dtype=np.uint16)
    made = enhanced_mr(stored, [
        {"position": (0, 0, 9), "slope": 2.0, "intercept": -5.0, "window": (50, 100), "time": 1, "b": 0.0},
        {"position": (0, 0, 3), "slope": 1.0, "time": 1, "b": 0.0},
        {"position": (0, 0, 3), "slope": 0.5, "time": 1, "b": 800.0},
    ])  # fmt: skip
    path = save(made, tmp_path / "a.dcm")
    found = scan(path)
    assert (found.frames, found.volumetric, found.spacing) == (3, True, (2.0, 1.0))
    assert [plane.stack for plane in found.planes] == ["b=0;t=1", "b=0;t=1", "b=800;t=1"]
    images = read(path)
    assert np.array_equal(images[0].pixels, stored[0].astype(int) * 2 - 5)
    assert images[0].window == (50.0, 100.0)
    assert [image.position_mm for image in images] == [9.0, 3.0, 3.0]
    assert np.array_equal(images[2].pixels, stored[2] * np.float32(0.5))
    assert images[1].window is None


@pytest.mark.parametrize(
    ("orientation", "plane", "turn"),
    [
        (AXIAL, "axial", lambda a: a),
        ([-1.0, 0.0, 0.0, 0.0, -1.0, 0.0], "axial", lambda a: a[::-1, ::-1]),
        ([0.0, 1.0, 0.0, 1.0, 0.0, 0.0], "axial", lambda a: a.T),
        (CORONAL, "coronal", lambda a: a),
        ([1.0, 0.0, 0.0, 0.0, 0.0, 1.0], "coronal", lambda a: a[::-1]),
        (SAGITTAL, "sagittal", lambda a: a),
        ([0.0, -1.0, 0.0, 0.0, 0.0, -1.0], "sagittal", lambda a: a[:, ::-1]),
    ],
)
def test_slices_are_turned_the_usual_way_up(tmp_path: Path, orientation: list[float], plane: str, turn) -> None:  # type: ignore[no-untyped-def]
    made = ct_slice((1, 2, 3), orientation=orientation)
    (image,) = read(save(made, tmp_path / "a.dcm"))
    assert image.plane == plane
    assert np.array_equal(image.pixels, turn(made.pixel_array.astype(int) - 1024))


def test_siemens_mosaic_is_taken_apart(tmp_path: Path) -> None:
    volume = RNG.integers(0, 900, (3, 4, 6), dtype=np.uint16)
    sheet = np.zeros((8, 12), np.uint16)
    for n, tile in enumerate(volume):
        sheet[n // 2 * 4 : n // 2 * 4 + 4, n % 2 * 6 : n % 2 * 6 + 6] = tile
    made = dataset(
        sheet, modality="MR", ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"], ImageOrientationPatient=AXIAL,
        ImagePositionPatient=[-6.0, -4.0, 10.0], PixelSpacing=[1.0, 1.0], SpacingBetweenSlices=5.0,
    )  # fmt: skip
    block = made.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0A, "US", 3)
    path = save(made, tmp_path / "a.dcm")
    found = scan(path)
    assert (found.frames, found.rows, found.columns) == (3, 4, 6)
    assert [plane.position for plane in found.planes] == [(-3.0, -2.0, 10.0), (-3.0, -2.0, 15.0), (-3.0, -2.0, 20.0)]
    assert all(np.array_equal(image.pixels, tile) for image, tile in zip(read(path), volume, strict=True))


def test_a_mosaic_that_does_not_say_how_stays_whole(tmp_path: Path) -> None:
    made = dataset(np.zeros((8, 12), np.uint16), modality="MR", ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    found = scan(save(made, tmp_path / "a.dcm"))
    assert (found.frames, found.planes) == (1, ())
    assert "mosaic" in found.warnings[0]


def test_loops_have_no_geometry(tmp_path: Path) -> None:
    made = dataset(RNG.integers(0, 255, (5, 4, 4), dtype=np.uint8), sop_class=US_LOOP, modality="US")
    found = scan(save(made, tmp_path / "a.dcm"))
    assert (found.frames, found.planes, found.volumetric) == (5, (), False)


def test_attributes_are_allow_listed_and_free_of_names(tmp_path: Path) -> None:
    name = "CANARY"
    made = ct_slice(
        (0, 0, 0), PatientName=f"{name}^A", PatientID="  id-7 ", IssuerOfPatientID="HOSP", BodyPartExamined="CHEST",
        ViewPosition=name, Manufacturer="SIEMENS Healthineers", PatientSex="F", PatientAge="006M",
        StudyDate="20210304", PatientBirthDate="19500101", Laterality="L", StudyDescription=name,
        ContrastBolusAgent=name, ScanningSequence=["SE", "IR"], InstitutionName=name,
    )  # fmt: skip
    made.private_block(0x0099, "ACME", create=True).add_new(1, "LO", name)
    found = scan(save(made, tmp_path / "a.dcm"))
    kept = found.attributes
    assert (found.patient_id, found.issuer) == ("id-7", "HOSP")
    assert (kept.modality, kept.body_part, kept.view, kept.laterality) == ("CT", "CHEST", "", "L")
    assert (kept.sex, kept.age, kept.manufacturer, kept.study_year) == ("F", 0.5, "Siemens", 2021)
    assert found.declared == (("sequence", "spin echo + inversion recovery"), ("contrast", "yes"))
    assert name not in repr(found)
    assert "1950" not in repr(found)
    assert "0304" not in repr(replace(found, sha256="", source=Source(Path("x"))))


@pytest.mark.parametrize(
    "field", ["Modality", "BodyPartExamined", "ViewPosition", "Manufacturer", "PatientSex", "ImageType"]
)
def test_a_name_typed_into_a_coded_field_is_dropped(tmp_path: Path, field: str) -> None:
    made = ct_slice((0, 0, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom would rather not write it
        setattr(made, field, "DOE JOHN ABDOMEN")
        found = scan(save(made, tmp_path / "a.dcm"))
    assert "DOE" not in repr(replace(found, source=Source(Path("x"))))


def test_age_from_the_birth_date(tmp_path: Path) -> None:
    made = ct_slice((0, 0, 0), PatientBirthDate="19800615", StudyDate="20200614")
    assert scan(save(made, tmp_path / "a.dcm")).attributes.age == 39.0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rtdose.dcm", "RT Dose Storage"), ("rtplan.dcm", "RT Plan Storage"),
        ("rtstruct.dcm", "RT Structure Set Storage"),
        ("liver_1frame.dcm", "Segmentation Storage"), ("test-SR.dcm", "Comprehensive SR Storage"),
        ("waveform_ecg.dcm", "ECG Waveform Storage"),
        ("dicomdirtests/DICOMDIR", "DICOM directory (DICOMDIR)"),
    ],
)  # fmt: skip
def test_objects_without_pictures_say_what_they_are(name: str, kind: str) -> None:
    path = real("rtdose.dcm").parent / name
    found = scan(path)
    assert found.frames == 0
    assert kind in found.warnings[0]
    with pytest.raises(RejectedInput, match="No pixels"):
        read(path)


def test_an_image_without_pixels_is_refused(tmp_path: Path) -> None:
    path = save(dataset(None), tmp_path / "a.dcm")
    with pytest.raises(RejectedInput, match="CT Image Storage file has no pixel data"):
        scan(path)
    assert scan(save(dataset(None, sop_class=REPORT, modality="SR"), tmp_path / "b.dcm")).frames == 0


def test_bare_data_sets_and_zip_members(tmp_path: Path) -> None:
    made = ct_slice((0, 0, 5), seed=3)
    bare = tmp_path / "bare"
    with bare.open("wb") as file:
        dcmwrite(file, Dataset(made), implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert bare.read_bytes()[128:132] != b"DICM"
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.write(save(made, tmp_path / "a.dcm"), "deep/a")
    member = Source(archive, "deep/a")
    (_, image), = READER.read(member, None, LIMITS)  # fmt: skip
    assert np.array_equal(image.pixels, made.pixel_array.astype(int) - 1024)
    assert READER.scan(member, LIMITS).sha256 == scan(tmp_path / "a.dcm").sha256
    assert np.array_equal(read(bare)[0].pixels, image.pixels)
    assert scan(real("ExplVR_BigEndNoMeta.dcm")).frames == 0


@pytest.mark.parametrize(
    "head",
    [
        b"", b"\x08\x00", b"\x89PNG\r\n\x1a\n" + bytes(200), b"\xff\xd8\xff\xe0" + bytes(200), b"GIF89a" + bytes(200),
        b"II*\x00\x08\x00\x00\x00" + bytes(200), (348).to_bytes(4, "little") + bytes(400),
        b"NRRD0004\ntype: short\n" * 9,
        b"ObjectType = Image\n" * 9, b"PK\x03\x04" + bytes(200), b"%PDF-1.7\n" * 30, b"path,label\na,b\n" * 30,
        b"\x02\x00\x00\x00" * 80, b"\x08\x00\x08\x00" * 80, bytes(400),
    ],
)  # fmt: skip
def test_other_formats_are_left_alone(head: bytes) -> None:
    assert not READER.can_read(head, "x.dcm")


def test_a_gzipped_file_reads_as_the_file(tmp_path: Path) -> None:
    import gzip

    plain = save(ct_slice((0.0, 0.0, 1.0)), tmp_path / "plain.dcm")
    packed = tmp_path / "packed.dcm.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    reader, limits = DicomReader(), Limits()
    one, other = reader.scan(Source(plain), limits), reader.scan(Source(packed), limits)
    assert (one.sop_uid, one.rows, one.planes) == (other.sop_uid, other.rows, other.planes)
    assert one.sha256 != other.sha256  # each its own bytes
    (_, first), (_, second) = (*reader.read(Source(plain), None, limits), *reader.read(Source(packed), None, limits))
    assert np.array_equal(first.pixels, second.pixels)
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(RejectedInput, match="truncated"):
        reader.scan(Source(packed), limits)


@given(
    bits=st.sampled_from([(8, 8), (8, 5), (16, 16), (16, 12), (16, 1), (32, 32), (32, 20)]),
    signed=st.booleans(),
    big_endian=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_uncompressed_values_are_those_pydicom_finds(
    bits: tuple[int, int], signed: bool, big_endian: bool, seed: int
) -> None:
    """Also where the bits that are not stored hold something."""
    allocated, stored = bits
    syntax = "1.2.840.10008.1.2.2" if big_endian else "1.2.840.10008.1.2.1"
    data = np.random.default_rng(seed).bytes(3 * 4 * allocated // 8)
    form = PixelFormat("PixelData", 1, 3, 4, 1, allocated, stored, signed, "MONOCHROME2", 0)
    pixels, photometric = decode(data, syntax, form)
    expected = get_decoder(UID(syntax)).as_array(
        data, raw=True, rows=3, columns=4, samples_per_pixel=1, photometric_interpretation="MONOCHROME2",
        bits_allocated=allocated, bits_stored=stored, pixel_representation=int(signed), planar_configuration=0,
        number_of_frames=1, pixel_keyword="PixelData", pixel_vr="OB",
    )[0]  # fmt: skip
    assert photometric == "MONOCHROME2"
    assert pixels.dtype.isnative and pixels.dtype.itemsize == allocated // 8
    np.testing.assert_array_equal(pixels, expected)


def test_a_file_read_after_its_scan_is_read_as_it_is_now(tmp_path: Path) -> None:
    """The header that the scan has parsed serves the read, unless the file was written to in between."""
    path = tmp_path / "a.dcm"
    first, second = np.arange(12, dtype=np.uint16).reshape(3, 4), np.arange(20, dtype=np.uint16).reshape(5, 4)
    reader, limits = DicomReader(), Limits()
    save(dataset(first, sop_class=SC, modality="OT"), path)
    reader.scan(Source(path), limits)
    ((_, image),) = reader.read(Source(path), None, limits)
    np.testing.assert_array_equal(image.pixels, first)
    reader.scan(Source(path), limits)
    save(dataset(second, sop_class=SC, modality="OT"), path)
    ((_, image),) = reader.read(Source(path), None, limits)
    np.testing.assert_array_equal(image.pixels, second)
