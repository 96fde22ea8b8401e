"""DICOM that is cut short, damaged, lying or a bomb: refused with a sentence, early, whatever the parser below does."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from indexer.limits import Limits
from indexer.readers import dicom
from indexer.readers.base import HEAD_BYTES
from indexer.readers.dicom import DicomReader
from indexer.readers.dicom.structure import walk
from indexer.sources import Source
from retrieval.errors import LimitExceeded, RejectedInput
from tests.dicom_files import US_LOOP, ct_slice, dataset, enhanced_mr, save
from tests.shared_data import shared_root

READER = DicomReader()
LIMITS = Limits()


def digest_all(path: Path, limits: Limits = LIMITS) -> int:
    """Frames decoded; RejectedInput when it is refused anywhere."""
    scan = READER.scan(Source(path), limits)
    return sum(1 for _ in READER.read(Source(path), None, limits)) if scan.frames else 0


def compressed(syntax: str) -> bytes:
    made = dataset(
        np.random.default_rng(5).integers(0, 4096, (3, 64, 64), dtype=np.uint16), sop_class=US_LOOP, modality="US"
    )
    made.compress(syntax, encoding_plugin="pylibjpeg" if syntax == JPEG2000Lossless else "")
    return written(made)


def written(made: Dataset) -> bytes:
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def deflated() -> bytes:
    made = ct_slice((0, 0, 0), size=32)
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return written(made)


def baseline_jpeg() -> bytes:
    found = get_testdata_file("SC_rgb_jpeg_dcmtk.dcm", download=False)
    assert isinstance(found, str)
    return Path(found).read_bytes()


_KINDS: list[Callable[[], bytes]] = [
    lambda: written(ct_slice((0, 0, 0), size=32)), lambda: compressed(RLELossless),
    lambda: compressed(JPEG2000Lossless), deflated, baseline_jpeg,
]  # fmt: skip


@pytest.mark.parametrize("make", _KINDS, ids=["raw", "rle", "j2k", "deflated", "jpeg"])
def test_every_truncation_is_refused(make: Callable[[], bytes], tmp_path: Path) -> None:
    whole = make()
    path = tmp_path / "a.dcm"
    path.write_bytes(whole)
    assert digest_all(path) >= 1
    whole = whole.rstrip(b"\x00") if make is deflated else whole  # padding behind the end of the stream is nothing lost
    cuts = {*range(132, min(len(whole), 1400)), *range(1400, len(whole), 97), len(whole) - 2, len(whole) - 1}
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        with pytest.raises(RejectedInput):
            digest_all(path)
            pytest.fail(f"cut at {cut} of {len(whole)} was accepted")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.integers(0, 4), flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), min_size=1, max_size=8)
)
@example(kind=1, flips=[(17524.5 / 25848, 128)])  # a panic in Rust, which is no Exception
def test_damage_ends_in_frames_or_a_sentence(kind: int, flips: list[tuple[float, int]], tmp_path: Path) -> None:
    data = bytearray(_KINDS[kind]())
    for where, mask in flips:
        data[int(where * len(data))] ^= mask
    path = tmp_path / "a.dcm"
    path.write_bytes(data)
    try:
        digest_all(path)
    except RejectedInput as refused:
        assert refused.reason.endswith(".")


OPEN = struct.pack("<HH2sHI", 0x0009, 0x1010, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
CLOSE = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def nested(levels: int) -> bytes:
    """A private sequence ``levels`` deep, every length undefined, in front of the pixels."""
    whole = written(ct_slice((0, 0, 0)))
    at = whole.index(struct.pack("<HH", 0x0018, 0x0050))  # SliceThickness: the next group
    return whole[:at] + OPEN * levels + CLOSE * levels + whole[at:]


def test_nesting_at_the_limit_and_one_past(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(nested(LIMITS.nesting))
    assert digest_all(path) == 1
    path.write_bytes(nested(LIMITS.nesting + 1))
    with pytest.raises(LimitExceeded, match="nested deeper than the limit of 32"):
        digest_all(path)
    path.write_bytes(nested(5000))
    with pytest.raises(LimitExceeded):
        digest_all(path)


def test_a_nested_kept_sequence_is_refused_not_overflowed(tmp_path: Path) -> None:
    inner = OPEN * 4000  # defined length outside, undefined inside: the walk skips it whole, the parser must not die
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    sequence = struct.pack("<HH2sHI", 0x0028, 0x3000, b"SQ", 0, len(item)) + item
    whole = written(ct_slice((0, 0, 0)))
    at = whole.index(struct.pack("<HH", 0x7FE0, 0x0010))
    path = tmp_path / "a.dcm"
    path.write_bytes(whole[:at] + sequence + whole[at:])
    with pytest.raises(RejectedInput):
        digest_all(path)


def meta_of(made: Dataset) -> bytes:
    """Preamble and file meta, up to where its group length says that it ends."""
    whole = written(made)
    return whole[: 144 + int.from_bytes(whole[140:144], "little")]


@pytest.mark.parametrize("declared", [1 << 30, 64])
def test_deflate_bombs_die_at_their_first_bytes(declared: int, tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte: as one private element, or as an endless run of small ones."""
    made = ct_slice((0, 0, 0))
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    element = struct.pack("<HH2sHI", 0x0009, 0x1010, b"OB", 0, declared)
    run = (element + bytes(declared)) * (1 << 14) if declared == 64 else bytes(1 << 22)
    parts = [packer.compress(element), *(packer.compress(run) for _ in range(256)), packer.flush()]
    path = tmp_path / "a.dcm"
    path.write_bytes(meta_of(made) + b"".join(parts))
    tracemalloc.start()
    with pytest.raises(RejectedInput):
        digest_all(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 << 20


def test_declared_sizes_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    made = ct_slice((0, 0, 0), Rows=65535, Columns=65535)
    path = save(made, tmp_path / "a.dcm")
    with pytest.raises(LimitExceeded, match="65535 x 65535"):
        digest_all(path)
    small = Limits(frame_pixels=64, frames=2, voxels=128)
    two = dataset(np.zeros((2, 8, 8), np.uint8), sop_class=US_LOOP, modality="US")
    assert digest_all(save(two, path), small) == 2
    for over in (np.zeros((3, 8, 8), np.uint8), np.zeros((1, 8, 9), np.uint8)):
        with pytest.raises(LimitExceeded):
            digest_all(save(dataset(over, sop_class=US_LOOP, modality="US"), path), small)


def test_frames_that_are_not_what_is_declared(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    made = dataset(np.zeros((2, 8, 8), np.uint8), sop_class=US_LOOP, modality="US")
    made.NumberOfFrames = 3
    with pytest.raises(RejectedInput, match="has 128 bytes, the header calls for 192"):
        READER.scan(Source(save(made, path)), LIMITS)
    made.NumberOfFrames = 1
    found = READER.scan(Source(save(made, path)), LIMITS)
    assert (found.frames, found.warnings) == (1, ("The pixel data has 64 bytes more than the header calls for.",))
    coded = dataset(np.zeros((3, 32, 32), np.uint8), sop_class=US_LOOP, modality="US")
    coded.compress(RLELossless)
    coded.NumberOfFrames = 4
    with pytest.raises(RejectedInput, match="declares 4 frames, the pixel data holds"):
        READER.scan(Source(save(coded, path)), LIMITS)


def test_a_compressed_frame_larger_than_declared_is_not_decoded(tmp_path: Path) -> None:
    big = dataset(np.zeros((512, 512), np.uint8), sop_class=US_LOOP, modality="US")
    big.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg")
    big.Rows = big.Columns = 64
    with pytest.raises(RejectedInput, match="512 x 512 x 1, the header says 64 x 64 x 1"):
        digest_all(save(big, tmp_path / "a.dcm"))


def test_transfer_syntaxes_that_lie_or_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    made = ct_slice((0, 0, 0))
    whole = written(made)
    path.write_bytes(whole.replace(b"1.2.840.10008.1.2.1\x00", b"1.2.840.10008.1.2.5\x00"))
    with pytest.raises(RejectedInput, match="says the pixels are compressed"):
        digest_all(path)
    path.write_bytes(whole.replace(b"1.2.840.10008.1.2.1\x00", b"1.2.840.999999.1.2\x00\x00"))
    with pytest.raises(RejectedInput, match="transfer syntax is not one"):
        digest_all(path)
    video = dataset(np.zeros((8, 8), np.uint8), sop_class=US_LOOP, modality="US")
    video.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    video.PixelData = encapsulate([bytes(64)])
    with pytest.raises(RejectedInput, match="video"):
        digest_all(save(video, path))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"BitsAllocated": 12}, "BitsAllocated is 12"), ({"BitsStored": 17}, "BitsStored is 17"),
        ({"PhotometricInterpretation": "RGB"}, "does not go with 1 samples"), ({"Rows": 0}, "expected 1 or more"),
        ({"SamplesPerPixel": 4}, "does not go with 4 samples"),
        ({"PhotometricInterpretation": "SECRET"}, "missing or unknown"),
    ],
)  # fmt: skip
def test_pixel_modules_that_make_no_sense(change: dict[str, object], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RejectedInput, match=sentence) as refused:
        digest_all(save(ct_slice((0, 0, 0), **change), tmp_path / "a.dcm"))
    assert "SECRET" not in refused.value.reason


def test_an_unparsable_value_does_not_cost_the_file(tmp_path: Path) -> None:
    made = ct_slice((0, 0, 0), PatientAge="045Y", WindowCenter=40, WindowWidth=400)
    whole = written(made).replace(b"045Y", b"4?!Y")
    at = whole.index(struct.pack("<HH2s", 0x0028, 0x1051, b"DS")) + 8
    whole = whole[:at] + b"x" + whole[at + 1 :]
    path = tmp_path / "a.dcm"
    path.write_bytes(whole)
    assert READER.scan(Source(path), LIMITS).attributes.age is None
    (_, image), = READER.read(Source(path), None, LIMITS)  # fmt: skip
    assert image.window is None


def test_warnings_of_libraries_are_not_let_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """They quote values; the suite turns any warning into an error, so reaching the end shows that there was none."""
    made = ct_slice((0, 0, 0))
    item = Dataset()
    item.PatientID = "CANARY"
    made.OtherPatientIDsSequence = Sequence([item])
    whole = written(made).replace(b"CT  ", b"ct!\\").replace(b"DS\x06\x00-1024 ", b"DS\x06\x00CANARY")
    path = tmp_path / "a.dcm"
    path.write_bytes(whole)
    digest_all(path)
    assert "CANARY" not in "".join(capfd.readouterr())


def test_the_parser_never_sees_what_was_not_asked_for(tmp_path: Path) -> None:
    made = enhanced_mr(np.zeros((2, 4, 4), np.uint16), [{"position": (0, 0, 0)}, {"position": (0, 0, 1)}])
    for group in made.PerFrameFunctionalGroupsSequence:
        group.private_block(0x0021, "CANARY", create=True).add_new(1, "LO", "CANARY")
        group.FrameComments = "CANARY"
        group.is_undefined_length_sequence_item = True
    made["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    made.PatientComments = "CANARY"
    path = save(made, tmp_path / "a.dcm")
    with path.open("rb") as file:
        assert b"CANARY" in path.read_bytes()
        kept = walk(file, dicom.WANTED, LIMITS).kept
    assert b"CANARY" not in kept
    assert [plane.position[2] for plane in READER.scan(Source(path), LIMITS).planes] == [0.0, 1.0]


CORPUS = shared_root()


@pytest.mark.skipif(CORPUS is None, reason="the shared corpora are not here")
def test_every_file_of_the_corpus_ends_in_frames_or_a_sentence() -> None:
    assert CORPUS is not None
    ends = {"frames": 0, "no pixels": 0, "refused": 0, "not DICOM": 0}
    for path in sorted((CORPUS / "corpora" / "dicom").rglob("*")):
        if not path.is_file():
            continue
        if not READER.can_read(path.read_bytes()[:HEAD_BYTES], path.name):
            ends["not DICOM"] += 1
            continue
        try:
            ends["frames" if digest_all(path) else "no pixels"] += 1
        except RejectedInput as refused:
            assert refused.reason.endswith("."), path
            ends["refused"] += 1
    assert ends["frames"] > 300
    assert ends["not DICOM"] < 10
    assert sum(ends.values()) > 500
