"""Which library decodes which transfer syntax, and what is checked before one is let near the bytes.

One decoder a syntax, chosen for safety first: Pillow for 8-bit JPEG, CharLS (pyjpegls) for JPEG-LS, OpenJPEG
(pylibjpeg-openjpeg) for JPEG 2000 and HTJ2K, pylibjpeg-rle for RLE. GDCM, which is known to die on hostile input, does
only what the others can't: lossless and 12-bit JPEG. All of them run in a limited worker process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from indexer.readers.dicom.structure import BIG_ENDIAN
from indexer.readers.dicom.values import quiet, uid_name
from retrieval.errors import RejectedInput
from retrieval.types import Pixels

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
ENCAPSULATED_NATIVE = "1.2.840.10008.1.2.1.98"
EXPLICIT = "1.2.840.10008.1.2.1"

NATIVE = frozenset(
    {"1.2.840.10008.1.2", EXPLICIT, "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", ENCAPSULATED_NATIVE}
)
PLUGINS = {
    JPEG_BASELINE: "pillow",
    JPEG_EXTENDED: "pillow",
    "1.2.840.10008.1.2.4.57": "gdcm",
    "1.2.840.10008.1.2.4.70": "gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg",
    "1.2.840.10008.1.2.5": "pylibjpeg",
}
_RLE = "1.2.840.10008.1.2.5"
_NOT_A_FRAME_HEADER = frozenset({0xC4, 0xC8, 0xCC})


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """The Image Pixel module (PS3.3 C.7.6.3), checked. ``bits_stored`` of a float image equals ``bits_allocated``."""

    keyword: str
    frames: int
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    planar: int

    @property
    def frame_bits(self) -> int:
        """Bits of one uncompressed frame; YBR_FULL_422 shares its chroma between two pixels (C.7.6.3.1.2)."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.columns * samples * self.bits_allocated

    @property
    def value_range(self) -> tuple[int, int]:
        """Smallest and largest value that can be stored."""
        if self.signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1


@dataclass(frozen=True, slots=True)
class CodedSize:
    """What a compressed frame says of itself."""

    rows: int
    columns: int
    components: int
    precision: int


def check_syntax(syntax: str) -> None:
    """Refuse a transfer syntax that nothing here decodes, by its name."""
    if syntax in NATIVE or syntax in PLUGINS:
        return
    name = uid_name(syntax)
    if any(word in name for word in ("MPEG", "HEVC", "SMPTE")):
        raise RejectedInput("scan", f"The pixels are video ({name}): export the frames as images first.")
    raise RejectedInput("scan", f"The transfer syntax is not one that is decoded here: {name}.")


def decode(coded: bytes, syntax: str, form: PixelFormat) -> tuple[Pixels, str]:
    """One frame's stored values, [rows, columns] or [rows, columns, 3], and their photometric interpretation.

    ``coded`` is the frame alone: native bytes, or its codestream. Raises RejectedInput when it does not decode.
    """
    if syntax in NATIVE:
        if form.samples == 1 and form.keyword == "PixelData" and form.bits_allocated in (8, 16, 32):
            return _grey(coded, form, ">" if syntax == BIG_ENDIAN else "<"), form.photometric
        return _run(coded, EXPLICIT if syntax == ENCAPSULATED_NATIVE else syntax, form, "")
    size = coded_size(coded, syntax)
    if size is not None:
        _check_size(size, form)
        if syntax == JPEG_EXTENDED and size.precision > 8:
            return _gdcm_12_bit(coded, form, size), form.photometric
    return _run(encapsulate([coded], has_bot=False), syntax, form, PLUGINS[syntax])


def _grey(data: bytes, form: PixelFormat, order: str) -> Pixels:
    """Uncompressed whole numbers (PS3.5 8.1.1). Bits past those stored may hold anything (once overlays): they are
    cleared, or made the sign."""
    bits = form.bits_allocated
    if len(data) * 8 < form.frame_bits:
        raise RejectedInput("decode", "The pixel data is cut short.")
    stored = np.frombuffer(data, f"{order}{'i' if form.signed else 'u'}{bits // 8}", form.rows * form.columns)
    pixels = stored.astype(stored.dtype.newbyteorder("="), copy=False).reshape(form.rows, form.columns)
    unused = bits - form.bits_stored
    return pixels << unused >> unused if unused else pixels


def _run(data: bytes, syntax: str, form: PixelFormat, plugin: str) -> tuple[Pixels, str]:
    options: dict[str, Any] = {
        "rows": form.rows,
        "columns": form.columns,
        "samples_per_pixel": form.samples,
        "photometric_interpretation": form.photometric,
        "bits_allocated": form.bits_allocated,
        "bits_stored": form.bits_stored,
        "pixel_representation": int(form.signed),
        "planar_configuration": form.planar,
        "number_of_frames": 1,
        "pixel_keyword": form.keyword,
        "pixel_vr": "OB",  # OW bytes of a big endian file have been swapped already
        "allow_excess_frames": False,
    }
    try:
        with quiet():
            pixels, found = get_decoder(UID(syntax)).as_array(data, raw=True, decoding_plugin=plugin, **options)
    except (MemoryError, RejectedInput, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # whatever decoders like: a panic in Rust is no Exception
        raise RejectedInput(
            "decode", f"The pixel data does not decode as {uid_name(syntax)}: it is damaged or mislabelled."
        ) from error
    return pixels, str(found["photometric_interpretation"])


def coded_size(coded: bytes, syntax: str) -> CodedSize | None:
    """The size in a JPEG, JPEG-LS or JPEG 2000 codestream's header; None for RLE, which has none."""
    if syntax == _RLE:
        return None
    siz = coded.find(b"\xff\x4f\xff\x51", 0, 4096)
    if siz >= 0 and len(coded) >= siz + 43:
        four = [int.from_bytes(coded[siz + at : siz + at + 4], "big") for at in (8, 12, 16, 20)]
        return CodedSize(
            four[1] - four[3], four[0] - four[2], int.from_bytes(coded[siz + 40 : siz + 42], "big"),
            (coded[siz + 42] & 0x7F) + 1,
        )  # fmt: skip
    at = coded.find(b"\xff\xd8", 0, 64) + 2
    while at >= 2 and at + 10 <= len(coded) and coded[at] == 0xFF:
        marker = coded[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in _NOT_A_FRAME_HEADER):
            rows, columns = (int.from_bytes(coded[at + i : at + i + 2], "big") for i in (5, 7))
            return CodedSize(rows, columns, coded[at + 9], coded[at + 4])
        at += 1 if marker == 0xFF else 2 + int.from_bytes(coded[at + 2 : at + 4], "big")
    raise RejectedInput("decode", "A compressed frame has no image header: it is damaged or of another format.")


def _check_size(size: CodedSize, form: PixelFormat) -> None:
    if (size.rows, size.columns, size.components) != (form.rows, form.columns, form.samples):
        raise RejectedInput(
            "decode",
            f"A compressed frame is {size.rows} x {size.columns} x {size.components}, "
            f"the header says {form.rows} x {form.columns} x {form.samples}.",
        )
    if size.precision > form.bits_allocated:
        raise RejectedInput(
            "decode", f"A compressed frame has {size.precision} bits, the header allows {form.bits_allocated}."
        )


def _gdcm_12_bit(coded: bytes, form: PixelFormat, size: CodedSize) -> Pixels:
    """A 12-bit lossy JPEG, which of the decoders at hand only GDCM reads."""
    import gdcm

    if form.samples != 1 or form.bits_allocated != 16:
        raise RejectedInput("decode", "A 12-bit JPEG is expected to be grey and allocated 16 bits.")
    gdcm.Trace.ErrorOff()
    gdcm.Trace.WarningOff()
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(coded)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((form.columns, form.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(JPEG_EXTENDED)))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, size.precision, size.precision - 1, int(form.signed)))
    found = image.GetBuffer()
    data = found.encode("utf-8", "surrogateescape") if isinstance(found, str) else b""
    if len(data) != 2 * form.rows * form.columns:
        raise RejectedInput("decode", "The pixel data does not decode as JPEG Extended: it is damaged or mislabelled.")
    return np.frombuffer(data, "<i2" if form.signed else "<u2").reshape(form.rows, form.columns)
