"""Pictures: every mode gives the values a person sees, nothing of the metadata, and damage is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from indexer.limits import Limits
from indexer.readers import open_reader
from indexer.readers.kept import SUFFIX, write_kept
from indexer.sources import Scan, Source
from retrieval.errors import LimitExceeded, RejectedInput
from retrieval.types import Image

LIMITS = Limits()


def decoded(path: Path, limits: Limits = LIMITS) -> tuple[Scan, list[Image]]:
    reader = open_reader(Source(path), limits)
    return reader.scan(Source(path), limits), [image for _, image in reader.read(Source(path), None, limits)]


def ramp(dtype: str = "u1", rows: int = 6, columns: int = 9) -> np.ndarray:  # type: ignore[type-arg]
    return np.arange(rows * columns).reshape(rows, columns).astype(dtype)


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "webp"])
def test_lossless_grey_is_exact_whatever_the_name_says(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"grey.{ending}"
    Pillow.fromarray(ramp()).save(path, **({"lossless": True} if ending == "webp" else {}))
    misnamed = path.rename(tmp_path / "image.dcm")
    scan, (image,) = decoded(misnamed)
    assert (scan.format, scan.frames, scan.rows, scan.columns) == ("raster", 1, 6, 9)
    np.testing.assert_array_equal(image.pixels, ramp())  # a grey stored as equal RGB channels is grey


def test_jpeg_grey_colour_and_cmyk(tmp_path: Path) -> None:
    grey = np.full((16, 16), 100, np.uint8)
    Pillow.fromarray(grey).save(tmp_path / "l.jpg")
    Pillow.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "rgb.jpg", quality=95)
    assert decoded(tmp_path / "l.jpg")[1][0].pixels.shape == (16, 16)
    assert decoded(tmp_path / "rgb.jpg")[1][0].pixels.shape == (16, 16)
    Pillow.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    pixels = decoded(tmp_path / "cmyk.jpg")[1][0].pixels
    assert pixels.shape == (8, 8, 3)
    assert pixels[4, 4, 0] > 200
    assert pixels[4, 4, 1] < 50


def test_deep_grey_keeps_its_values(tmp_path: Path) -> None:
    deep = (ramp("u2") * 1000).astype(np.uint16)
    Pillow.fromarray(deep).save(tmp_path / "deep.png")
    Pillow.fromarray(deep).save(tmp_path / "deep.tif")
    Pillow.fromarray(ramp("i4") - 20).save(tmp_path / "signed.tif")
    floats = ramp("f4") / 7
    floats[0, 0] = np.nan
    Pillow.fromarray(floats).save(tmp_path / "float.tif")
    for name in ("deep.png", "deep.tif"):
        pixels = decoded(tmp_path / name)[1][0].pixels
        assert pixels.dtype in (np.uint16, np.int16)
        np.testing.assert_array_equal(pixels, deep)
    np.testing.assert_array_equal(decoded(tmp_path / "signed.tif")[1][0].pixels, ramp("i4") - 20)
    pixels = decoded(tmp_path / "float.tif")[1][0].pixels
    np.testing.assert_array_equal(pixels.ravel()[1:], floats.ravel()[1:])
    assert pixels[0, 0] == floats[0, 1]  # the lowest finite value


def test_palette_one_bit_and_transparency(tmp_path: Path) -> None:
    palette = Pillow.fromarray(ramp("u1", 4, 4)).convert("P")
    palette.putpalette([channel for value in range(256) for channel in (value, 0, 255 - value)])
    palette.save(tmp_path / "p.png")
    assert decoded(tmp_path / "p.png")[1][0].pixels[0, 3].tolist() == [3, 0, 252]
    Pillow.fromarray(ramp() % 2 == 1).save(tmp_path / "bit.png")
    assert set(decoded(tmp_path / "bit.png")[1][0].pixels.ravel().tolist()) == {0, 255}
    Pillow.new("RGBA", (4, 4), (200, 100, 50, 0)).save(tmp_path / "clear.png")
    assert decoded(tmp_path / "clear.png")[1][0].pixels.max() == 0  # over black
    Pillow.new("LA", (4, 4), (200, 255)).save(tmp_path / "la.png")
    assert set(decoded(tmp_path / "la.png")[1][0].pixels.ravel().tolist()) == {200}


def test_pages_of_a_tiff_are_frames(tmp_path: Path) -> None:
    pages = [Pillow.fromarray(np.full((5, 7), value, np.uint8)) for value in range(4)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    scan, images = decoded(tmp_path / "pages.tif")
    assert scan.frames == 4
    assert not scan.volumetric
    assert [int(image.pixels[0, 0]) for image in images] == [0, 1, 2, 3]
    source = Source(tmp_path / "pages.tif")
    reader = open_reader(source, LIMITS)
    assert [index for index, _ in reader.read(source, (3, 1), LIMITS)] == [3, 1]
    with pytest.raises(RejectedInput, match="has 4"):
        list(reader.read(source, (4,), LIMITS))


def test_orientation_is_applied_and_nothing_else_is_kept(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    exif[0x010E] = "DOE^JANE"
    Pillow.fromarray(ramp()).save(tmp_path / "turned.png", exif=exif)
    scan, (image,) = decoded(tmp_path / "turned.png")
    assert (scan.rows, scan.columns) == (9, 6)
    np.testing.assert_array_equal(image.pixels, np.rot90(ramp(), -1))
    assert "DOE" not in repr(scan)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_truncated_pictures_are_refused(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(noise).save(buffer, kind)
    whole = buffer.getvalue()
    path = tmp_path / "cut"
    for length in range(0, len(whole) * 9 // 10, len(whole) // 23):
        path.write_bytes(whole[:length])
        with pytest.raises(RejectedInput):
            decoded(path)


def test_limits_at_the_cap_and_one_past_it(tmp_path: Path) -> None:
    Pillow.fromarray(ramp("u1", 10, 10)).save(tmp_path / "ten.png")
    assert decoded(tmp_path / "ten.png", Limits(frame_pixels=100))[0].rows == 10
    with pytest.raises(LimitExceeded, match="max_megapixels"):
        decoded(tmp_path / "ten.png", Limits(frame_pixels=99))


def test_a_large_picture_with_nothing_in_it_is_refused(tmp_path: Path) -> None:
    Pillow.new("L", (9000, 9000)).save(tmp_path / "empty.png")
    with pytest.raises(LimitExceeded, match="to 1"):
        decoded(tmp_path / "empty.png")
    Pillow.new("L", (2000, 2000)).save(tmp_path / "small.png")
    assert decoded(tmp_path / "small.png")[0].rows == 2000


def test_other_formats_pillow_knows_are_not_opened(tmp_path: Path) -> None:
    Pillow.fromarray(ramp()).save(tmp_path / "a.gif")
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name in ("a.gif", "a.eps"):
        with pytest.raises(RejectedInput, match="no reader"):
            open_reader(Source(tmp_path / name), LIMITS)


def test_kept_frames_come_back_without_identifiers(tmp_path: Path) -> None:
    frames = [
        Image(ramp("u1", 4, 5), spacing=(0.5, 0.25), plane="axial", position_mm=1.5, sop_instance_uid="1.2.3.4"),
        Image((ramp("i2", 3, 3) - 4).astype(np.int16), modality="CT", window=(40.0, 400.0), frame_number=2),
        Image(np.zeros((2, 2, 3), np.uint8), frame_number=3),
    ]
    path = tmp_path / f"upload{SUFFIX}"
    assert write_kept(path, iter(frames), volumetric=True) == 3
    scan, images = decoded(path)
    assert (scan.format, scan.frames, scan.volumetric) == ("kept", 3, True)
    for kept, frame in zip(images, frames, strict=True):
        np.testing.assert_array_equal(kept.pixels, frame.pixels)
        assert kept.sop_instance_uid == ""
        assert (kept.spacing, kept.window, kept.plane, kept.position_mm, kept.modality, kept.frame_number) == (
            frame.spacing,
            frame.window,
            frame.plane,
            frame.position_mm,
            frame.modality,
            frame.frame_number,
        )
    assert b"1.2.3.4" not in path.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_every_flip_of_a_kept_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / f"upload{SUFFIX}"
    write_kept(path, [Image(ramp("u1", 4, 5))])
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(RejectedInput):
            decoded(path)


def test_no_frame_leaves_no_file(tmp_path: Path) -> None:
    assert write_kept(tmp_path / "none.precedent", []) == 0

    def broken() -> object:
        yield Image(ramp())
        raise RejectedInput("decode", "half way")

    with pytest.raises(RejectedInput, match="half way"):
        write_kept(tmp_path / "half.precedent", broken())  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
