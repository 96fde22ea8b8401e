"""From stored values to what they mean: modality transform once, photometric interpretation, window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from indexer import pixels as px
from indexer.readers.dicom import values
from indexer.readers.dicom.codecs import PixelFormat
from indexer.readers.dicom.geometry import macro
from retrieval.errors import RejectedInput
from retrieval.types import Pixels

Groups = tuple[Dataset | None, Dataset | None]
Window = tuple[float, float]

_RED, _SEGMENTED = "RedPaletteColorLookupTable", "SegmentedRedPaletteColorLookupTableData"
_COLOURS = ("Red", "Green", "Blue")


@dataclass(frozen=True, slots=True)
class Rescale:
    """The Modality LUT module of one frame: a table, or slope and intercept (PS3.3 C.11.1)."""

    slope: float = 1.0
    intercept: float = 0.0
    first: int = 0
    table: npt.NDArray[np.uint16] | None = None

    def apply(self, stored: Pixels) -> Pixels:
        if self.table is not None and stored.dtype.kind in "iu":
            return px.apply_lut(stored, self.first, self.table)
        return px.rescale(stored, self.slope, self.intercept)

    def ends(self, form: PixelFormat) -> float:
        """Sum of the values both ends of the stored range map to: what MONOCHROME1 is mirrored about."""
        if self.table is not None:
            return float(int(self.table.min()) + int(self.table.max()))
        return self.slope * sum(form.value_range) + 2 * self.intercept


def meaning(
    stored: Pixels, photometric: str, form: PixelFormat, header: Dataset, groups: Groups | None, modality: str
) -> tuple[Pixels, Window | None]:
    """The frame's pixels (grey in real units, or uint8 RGB) and its window in the same units.

    MONOCHROME1 is turned so that more is brighter, but for CT, whose Hounsfield units say that already.
    """
    if form.samples == 3:
        return _colour(stored, photometric, form), None
    if photometric == "PALETTE COLOR":
        return _palette(stored, header), None
    rescaled = rescale_of(header, groups)
    found, window = rescaled.apply(stored), window_of(header, groups)
    if photometric == "MONOCHROME1" and modality != "CT":
        total = _float_ends(found) if form.keyword != "PixelData" else rescaled.ends(form)
        return px.mirror(found, total), window and px.mirror_window(window, total)
    return found, window


def rescale_of(header: Dataset, groups: Groups | None) -> Rescale:
    """The frame's own transformation, else the image's; no transformation when it is absent or has a slope of 0."""
    own = macro(groups, "PixelValueTransformationSequence") if groups is not None else None
    if own is None and (lut := values.item(header, "ModalityLUTSequence")) is not None:
        described, data = values.numbers(lut, "LUTDescriptor"), values.value(lut, "LUTData")
        if len(described) == 3 and (table := _table(data, 16)).size:
            return Rescale(first=int(described[1]), table=table)
    source = header if own is None else own
    slope, intercept = values.number(source, "RescaleSlope"), values.number(source, "RescaleIntercept")
    return Rescale(slope or 1.0, intercept or 0.0)


def window_of(header: Dataset, groups: Groups | None) -> Window | None:
    """(centre, width) of the first VOI window; the frame's own before the image's. Units are those after rescaling."""
    own = macro(groups, "FrameVOILUTSequence") if groups is not None else None
    for source in (own, header):
        if source is None:
            continue
        centre, width = values.number(source, "WindowCenter"), values.number(source, "WindowWidth")
        if centre is not None and width is not None and width > 0:
            return (centre, width)
    return None


def _float_ends(found: Pixels) -> float:
    finite = found[np.isfinite(found)]
    return float(finite.min()) + float(finite.max()) if finite.size else 0.0


def _colour(stored: Pixels, photometric: str, form: PixelFormat) -> Pixels:
    eight = px.to_8_bit(stored.view(f"u{stored.dtype.itemsize}"), form.bits_stored) if stored.itemsize > 1 else stored
    if photometric in ("YBR_FULL", "YBR_FULL_422"):
        return px.ybr_to_rgb(eight)
    if photometric in ("YBR_PARTIAL_422", "YBR_PARTIAL_420"):
        return px.ybr_to_rgb(eight, partial=True)
    return np.ascontiguousarray(eight.view(np.uint8))


def _palette(stored: Pixels, header: Dataset) -> Pixels:
    described = values.numbers(header, f"{_RED}Descriptor")
    if len(described) != 3:
        raise RejectedInput("decode", "A palette image has no palette: its colours can't be known.")
    entries, first, bits = int(described[0]) or 65536, int(described[1]), int(described[2])
    if bits not in (8, 16):
        raise RejectedInput("decode", f"A palette has {bits}-bit entries, expected 8 or 16.")
    first = first - 65536 if first > 32767 and stored.dtype.kind == "i" else first
    if _SEGMENTED in header:
        table = _segmented(header, entries, first)
    else:
        columns = [
            _table(values.value(header, f"{name}PaletteColorLookupTableData"), bits, entries) for name in _COLOURS
        ]
        if len({len(column) for column in columns}) != 1 or not len(columns[0]):
            raise RejectedInput("decode", "A palette's red, green and blue tables differ in length: it is damaged.")
        table = np.stack(columns, axis=-1)
    return px.palette_to_rgb(stored, first, table, bits)


def _segmented(header: Dataset, entries: int, first: int) -> npt.NDArray[np.uint16]:
    """A run-length coded palette (PS3.3 C.7.9.2), unrolled by sending every possible value through it."""
    ramp = np.arange(first, first + entries, dtype=np.int32)
    try:
        with values.quiet():
            return np.asarray(apply_color_lut(ramp, header), dtype=np.uint16)
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        raise RejectedInput("decode", "A segmented palette can't be unrolled: it is damaged.") from error


def _table(data: object, bits: int, entries: int = 0) -> npt.NDArray[np.uint16]:
    """Table data as uint16; the bytes may hold one or two bytes an entry, whatever ``bits`` says."""
    if isinstance(data, bytes):
        if bits == 8 and entries and len(data) < 2 * entries:
            return np.frombuffer(data, np.uint8)[:entries].astype(np.uint16)
        return np.frombuffer(data[: len(data) // 2 * 2], "<u2").astype(np.uint16)
    if isinstance(data, int):
        data = [data]
    try:
        return np.asarray(data, dtype=np.int64).astype(np.uint16).reshape(-1)
    except (TypeError, ValueError):
        return np.empty(0, np.uint16)
