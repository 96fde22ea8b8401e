"""PNG, JPEG, TIFF, BMP and WebP through Pillow, from an explicit list of formats. Nothing but pixels is kept.

Transparency is laid over black, as the surroundings of a medical image are. A colour picture whose three channels are
equal is grey. EXIF orientation is applied; all other metadata is dropped.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from indexer.limits import Limits
from indexer.pixels import narrow
from indexer.readers.bytes import digest, open_unpacked
from indexer.sources import Scan, Source
from retrieval.errors import LimitExceeded, RejectedInput
from retrieval.types import Image, Pixels

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "MPO")  # MPO: a JPEG with a second one behind it; its first is used
_DEEP = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}
_ORIENTATION = 0x0112
_LARGE = 64 << 20  # bytes decoded, from where a picture must have some substance
_EMPTY_RATIO = 250  # to 1: several times what JPEG reaches on any real picture
_TURNED = (5, 6, 7, 8)  # orientations that swap rows and columns


class RasterReader:
    format = "raster"

    def can_read(self, head: bytes, name: str) -> bool:
        if head[128:132] == b"DICM":  # a DICOM file may carry a TIFF header in its preamble (PS3.10 7.1)
            return False
        return (
            head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"))
            or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
            or (
                head[:2] == b"BM"
                and len(head) >= 26
                and struct.unpack("<I", head[14:18])[0] in (12, 40, 52, 56, 64, 108, 124)
            )
        )

    def scan(self, source: Source, limits: Limits) -> Scan:
        with open_unpacked(source, limits) as stream, _opened(stream, limits) as picture:
            frames = _frames(picture)
            columns, rows = picture.size
            if _orientation(picture) in _TURNED:
                rows, columns = columns, rows
            limits.check_frame(rows, columns, frames)
            bands = len(picture.getbands())
        sha256, size = digest(source, limits)
        _check_substance(size, rows * columns * bands)
        return Scan(
            source=source, format=self.format, sha256=sha256, bytes=size, frames=frames, rows=rows, columns=columns
        )

    def read(self, source: Source, frames: Sequence[int] | None, limits: Limits) -> Iterator[tuple[int, Image]]:
        with open_unpacked(source, limits) as stream, _opened(stream, limits) as picture:
            count = _frames(picture)
            for index in range(count) if frames is None else frames:
                if not 0 <= index < count:
                    raise RejectedInput("decode", f"Frame {index} was asked for, the file has {count}: index it again.")
                yield index, Image(pixels=_decoded(picture, index, limits), frame_number=index + 1)


def _opened(stream: object, limits: Limits) -> Pillow.Image:
    Pillow.MAX_IMAGE_PIXELS = limits.frame_pixels  # Pillow's own check, before it allocates; ours follows
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            return Pillow.open(stream, formats=_FORMATS)  # type: ignore[arg-type]
    except (Pillow.DecompressionBombWarning, Pillow.DecompressionBombError) as error:
        raise LimitExceeded(
            "scan", f"The picture is over the limit of {limits.frame_pixels} pixels (max_megapixels)."
        ) from error
    except (OSError, SyntaxError, ValueError, struct.error, KeyError, OverflowError, TypeError) as error:
        raise RejectedInput("scan", "The picture's header is damaged, or of a kind that is not read.") from error


def _frames(picture: Pillow.Image) -> int:
    """Pages of a TIFF; every other format gives its first picture, animated or not."""
    return int(getattr(picture, "n_frames", 1)) if picture.format == "TIFF" else 1


def _check_substance(stored: int, decoded: int) -> None:
    """Refuse a large picture with next to nothing in it: it costs what its pixels cost and shows nothing."""
    if decoded > _LARGE and decoded > _EMPTY_RATIO * stored:
        raise LimitExceeded(
            "scan",
            f"{stored} bytes would decode to {decoded}, over {_EMPTY_RATIO} to 1: a picture this large and empty "
            "is refused.",
        )


def _orientation(picture: Pillow.Image) -> object:
    """Of the header alone: asking Pillow for a PNG's EXIF would decode its pixels."""
    if picture.format == "PNG" and "exif" not in picture.info:
        return None
    try:
        return picture.getexif().get(_ORIENTATION)
    except (OSError, SyntaxError, ValueError, struct.error, KeyError, TypeError) as error:
        raise RejectedInput("scan", "The picture's EXIF data is damaged.") from error


def _decoded(picture: Pillow.Image, index: int, limits: Limits) -> Pixels:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            if index or picture.format == "TIFF":
                picture.seek(index)
                limits.check_frame(picture.height, picture.width)
            picture.load()
            return _values(ImageOps.exif_transpose(picture))
    except (Pillow.DecompressionBombWarning, Pillow.DecompressionBombError) as error:
        raise LimitExceeded(
            "decode", f"The picture is over the limit of {limits.frame_pixels} pixels (max_megapixels)."
        ) from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        struct.error,
        KeyError,
        IndexError,
        EOFError,
        OverflowError,
        TypeError,
    ) as error:
        raise RejectedInput("decode", "The picture is truncated or damaged: its pixels can't be decoded.") from error


def _values(picture: Pillow.Image) -> Pixels:
    if picture.mode in _DEEP:
        return _deep(np.asarray(picture))
    if picture.mode in ("1", "L"):
        return np.array(picture.convert("L"))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = _over_black(picture.convert("RGBA"))
    return _grey_if_equal(np.array(picture.convert("RGB")))


def _deep(values: Pixels) -> Pixels:
    """16-bit, 32-bit and floating-point grey in the narrowest dtype that holds it; NaN and infinity made finite."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.any():
            raise RejectedInput("decode", "Every pixel is NaN or infinite: there is no image in it.")
        low, high = float(values[finite].min()), float(values[finite].max())
        return np.nan_to_num(values, nan=low, posinf=high, neginf=low).astype(np.float32)
    return narrow(values.astype(values.dtype.newbyteorder("=")))


def _over_black(picture: Pillow.Image) -> Pillow.Image:
    black = Pillow.new("RGBA", picture.size, (0, 0, 0, 255))
    return Pillow.alpha_composite(black, picture)


def _grey_if_equal(rgb: Pixels) -> Pixels:
    red = rgb[..., 0]
    if np.array_equal(red, rgb[..., 1]) and np.array_equal(red, rgb[..., 2]):
        return np.ascontiguousarray(red)
    return rgb
