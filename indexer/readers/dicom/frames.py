"""Finding the bytes of one frame in a DICOM file: native, bit-packed, or in fragments (PS3.5 A.4, 8.1)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import BinaryIO, Self

import numpy as np
from pydicom.dataset import Dataset

from indexer.limits import Limits
from indexer.readers.dicom import values
from indexer.readers.dicom.codecs import ENCAPSULATED_NATIVE, NATIVE, PixelFormat, check_syntax, decode
from indexer.readers.dicom.inflate import Inflated
from indexer.readers.dicom.structure import BIG_ENDIAN, DEFLATED, PixelElement, Structure
from retrieval.errors import LimitExceeded, RejectedInput
from retrieval.types import Pixels

_CODESTREAM_STARTS = (b"\xff\xd8", b"\xff\x4f")  # JPEG family, JPEG 2000 family
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"})
_COLOUR = frozenset(
    {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"}
)  # fmt: skip

Span = tuple[int, int]  # offset, length


def format_of(header: Dataset, pixels: PixelElement, limits: Limits) -> PixelFormat:
    """The checked Image Pixel module. Raises RejectedInput for nonsense, LimitExceeded for too large."""
    whole = {name: values.integer(header, name) for name in ("Rows", "Columns", "BitsAllocated")}
    missing = [name for name, found in whole.items() if found is None]
    if missing:
        raise RejectedInput("scan", f"The header lacks {', '.join(missing)}, which pixel data can't be read without.")
    rows, columns, allocated = (found or 0 for found in whole.values())
    frames = values.integer(header, "NumberOfFrames")
    frames = 1 if frames is None else frames
    if rows < 1 or columns < 1 or frames < 1:
        raise RejectedInput(
            "scan", f"The header declares {frames} frames of {rows} x {columns} pixels: expected 1 or more."
        )
    limits.check_frame(rows, columns, frames)
    samples = values.integer(header, "SamplesPerPixel") or 1
    real = pixels.keyword != "PixelData"
    stored = allocated if real else values.integer(header, "BitsStored")
    stored = allocated if stored is None else stored
    form = PixelFormat(
        pixels.keyword, frames, rows, columns, samples, allocated, stored,
        values.integer(header, "PixelRepresentation") == 1 and not real,
        values.text(header, "PhotometricInterpretation").upper(),
        values.integer(header, "PlanarConfiguration") or 0,
    )  # fmt: skip
    _check_format(form)
    return form


def _check_format(form: PixelFormat) -> None:
    allowed = {"PixelData": (1, 8, 16, 32), "FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}[form.keyword]
    if form.bits_allocated not in allowed:
        raise RejectedInput(
            "scan", f"BitsAllocated is {form.bits_allocated}, expected one of {', '.join(map(str, allowed))}."
        )
    if not 1 <= form.bits_stored <= form.bits_allocated:
        raise RejectedInput("scan", f"BitsStored is {form.bits_stored}, expected 1 to {form.bits_allocated}.")
    known = _GREY if form.samples == 1 else _COLOUR if form.samples == 3 else frozenset()
    if form.photometric not in known:
        shown = form.photometric if form.photometric in _GREY | _COLOUR else "missing or unknown"
        raise RejectedInput(
            "scan", f"PhotometricInterpretation is {shown}, which does not go with {form.samples} samples per pixel."
        )
    if form.planar not in (0, 1):
        raise RejectedInput("scan", f"PlanarConfiguration is {form.planar}, expected 0 or 1.")
    if form.samples == 3 and form.bits_allocated not in (8, 16, 32):
        raise RejectedInput("scan", f"A colour image has {form.bits_allocated} bits allocated, expected 8, 16 or 32.")


class FrameBytes:
    """The frames of one walked file. ``warnings`` tells what is odd about their number or length."""

    def __init__(self, structure: Structure, form: PixelFormat, limits: Limits) -> None:
        check_syntax(structure.syntax)
        if structure.pixels is None:
            raise RejectedInput("scan", "The file has no pixel data.")
        self._structure = structure
        self._pixels = structure.pixels
        self.form = form
        self.warnings: list[str] = []
        self._spans: list[list[Span]] = []
        native = structure.syntax in NATIVE and structure.syntax != ENCAPSULATED_NATIVE
        if native == (self._pixels.fragments is not None):
            said, is_so = ("uncompressed", "compressed") if native else ("compressed", "not compressed")
            raise RejectedInput("scan", f"The transfer syntax says the pixels are {said}, but they are {is_so}.")
        if native:
            self._check_length(limits)
        else:
            self._spans = self._group(list(self._pixels.fragments or ()))

    def of(self, stream: BinaryIO) -> Self:
        """The same frames, of the same file opened anew."""
        other = copy.copy(self)
        other._structure = replace(self._structure, stream=stream)
        return other

    def decode(self, index: int) -> tuple[Pixels, str]:
        """Stored values of the 0-based frame and their photometric interpretation."""
        if self._spans:
            coded = b"".join(self._read(offset, length) for offset, length in self._spans[index])
            return decode(coded, self._structure.syntax, self.form)
        if isinstance(self._structure.stream, Inflated):
            self._structure.stream.finish(self._pixels.offset + self._pixels.length)
        if self.form.bits_allocated == 1:
            return self._bits(index), self.form.photometric
        size = self.form.frame_bits // 8
        if self._structure.syntax == BIG_ENDIAN and self.form.bits_allocated == 8 and self._pixels.vr == "OW":
            return decode(self._swapped(index * size, size), self._structure.syntax, self.form)
        return decode(self._read(self._pixels.offset + index * size, size), self._structure.syntax, self.form)

    def _check_length(self, limits: Limits) -> None:
        expected = (self.form.frame_bits * self.form.frames + 7) // 8
        found = self._pixels.length
        if self.form.photometric == "YBR_FULL_422" and found >= expected // 2 * 3:
            self.form = replace(self.form, photometric="YBR_FULL")
            expected = expected // 2 * 3
        if found < expected:
            raise RejectedInput("scan", f"The pixel data has {found} bytes, the header calls for {expected}.")
        if found > expected + 1:
            self.warnings.append(f"The pixel data has {found - expected} bytes more than the header calls for.")
        if self._structure.syntax == DEFLATED and found > limits.memory_bytes // 4:
            raise LimitExceeded("scan", f"{found} bytes of deflated pixels are over a quarter of the worker's memory.")

    def _read(self, offset: int, length: int) -> bytes:
        self._structure.stream.seek(offset)
        data = self._structure.stream.read(length)
        if len(data) < length:
            raise RejectedInput("decode", "The pixel data is cut short.")
        return data

    def _swapped(self, start: int, size: int) -> bytes:
        """8-bit samples in big endian words of 16: the bytes of each word are exchanged (PS3.5 8.1.1)."""
        first = start - start % 2
        words = self._read(self._pixels.offset + first, size + (start - first) + (size + start - first) % 2)
        return np.frombuffer(words, "u2").byteswap().tobytes()[start - first : start - first + size]

    def _bits(self, index: int) -> Pixels:
        """One bit a pixel, least significant first, frames not aligned to bytes (PS3.5 8.1.1)."""
        count = self.form.rows * self.form.columns
        start = index * count
        packed = self._read(self._pixels.offset + start // 8, (start % 8 + count + 7) // 8)
        if self._structure.syntax == BIG_ENDIAN and self._pixels.vr == "OW":
            raise RejectedInput(
                "decode", "Bit-packed pixels in big endian words are not read: re-export as little endian."
            )
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
        return bits[start % 8 : start % 8 + count].reshape(self.form.rows, self.form.columns)

    def _group(self, fragments: list[Span]) -> list[list[Span]]:
        """The fragments of each frame: by the basic offset table, one each, or by where codestreams start."""
        frames = self.form.frames
        table, rest = fragments[:1], fragments[1:]
        if not rest:
            raise RejectedInput("scan", "The compressed pixel data has no fragments.")
        if len(rest) == frames:
            return [[span] for span in rest]
        groups = self._by_offsets(table[0], rest) if table[0][1] else []
        if len(groups) != frames:
            groups = self._by_codestream(rest)
        if len(groups) < frames:
            raise RejectedInput("scan", f"The header declares {frames} frames, the pixel data holds {len(groups)}.")
        if len(groups) > frames:
            self.warnings.append(f"The header declares {frames} frames, the pixel data holds {len(groups)}.")
        return groups[:frames]

    def _by_offsets(self, table: Span, rest: list[Span]) -> list[list[Span]]:
        offsets = set(np.frombuffer(self._read(table[0], table[1] // 4 * 4), "<u4").tolist())
        base = rest[0][0] - 8
        groups: list[list[Span]] = []
        for span in rest:
            if not groups or span[0] - 8 - base in offsets:
                groups.append([])
            groups[-1].append(span)
        return groups

    def _by_codestream(self, rest: list[Span]) -> list[list[Span]]:
        groups: list[list[Span]] = []
        for offset, length in rest:
            if not groups or (length >= 2 and self._read(offset, 2) in _CODESTREAM_STARTS):
                groups.append([])
            groups[-1].append((offset, length))
        return groups
