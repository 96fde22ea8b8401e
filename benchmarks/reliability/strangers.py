"""Pictures that no gallery of medical images should know: noise, patterns, text, drawings, photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Grey = npt.NDArray[np.float64]

SIDE = 256
LETTERS = np.array(list("aaabcdeeefghiiijklmnooopqrrssttuvwxyz     .,"))
PHOTOGRAPHS = (".jpg", ".jpeg", ".png")


def noise(rng: np.random.Generator) -> Image.Image:
    return _grey(rng.integers(0, 256, (SIDE, SIDE)))


def coloured_noise(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))


def uniform(rng: np.random.Generator) -> Image.Image:
    """One grey, but for one pixel: a constant picture is told by itself, and two of them are one case."""
    pixels = np.full((SIDE, SIDE), rng.integers(1, 255))
    pixels[tuple(rng.integers(0, SIDE, 2))] += 1
    return _grey(pixels)


def gradient(rng: np.random.Generator) -> Image.Image:
    slope = _slope(rng)
    return _grey(255 * (slope - slope.min()) / np.ptp(slope))


def grating(rng: np.random.Generator) -> Image.Image:
    return _grey(127.5 + 127.5 * np.sin(2 * np.pi * rng.uniform(0.5, 20) * _slope(rng) / SIDE))


def faint_noise(rng: np.random.Generator) -> Image.Image:
    return _grey(127 + rng.normal(size=(SIDE, SIDE)) * rng.uniform(10, 60))


def salt_and_pepper(rng: np.random.Generator) -> Image.Image:
    pixels, drawn = np.full((SIDE, SIDE), rng.integers(60, 200)), rng.random((SIDE, SIDE))
    pixels[drawn < 0.05], pixels[drawn > 0.95] = 0, 255
    return _grey(pixels)


def clouds(rng: np.random.Generator) -> Image.Image:
    """Noise with the spectrum of natural images, 1/f to a power."""
    across, down = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE))
    frequency = np.hypot(across, down)
    frequency[0, 0] = 1.0
    drawn = np.real(np.fft.ifft2(np.fft.fft2(rng.normal(size=(SIDE, SIDE))) / frequency ** rng.uniform(0.8, 1.6)))
    return _grey(255 * (drawn - drawn.min()) / np.ptp(drawn))


def chequers(rng: np.random.Generator) -> Image.Image:
    down, across = np.mgrid[0:SIDE, 0:SIDE] + rng.integers(0, 64, (2, 1, 1))
    size = rng.integers(4, 64)
    return _grey(255 * ((down // size + across // size) % 2))


def page(rng: np.random.Generator) -> Image.Image:
    """A page of letters."""
    picture = Image.new("L", (SIDE, SIDE * 5 // 4), 255)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(int(rng.integers(9, 18)))
    for top in range(8, SIDE * 5 // 4 - 12, 20):
        pen.text((8, top), "".join(rng.choice(LETTERS, 40)), fill=0, font=font)
    return picture


def shapes(rng: np.random.Generator) -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), _colour(rng))
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        left, top, width, height = rng.integers(0, 200, 4).tolist()
        draw = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        draw((left, top, left + width, top + height), fill=_colour(rng))
    return picture


def digit(rng: np.random.Generator) -> Image.Image:
    """A handwritten one, from scikit-learn."""
    from sklearn.datasets import load_digits

    drawn = load_digits().images
    return _grey(drawn[rng.integers(len(drawn))] * 15.9).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def crop(photograph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A square of a third to nine tenths of its shorter side."""
    width, height = photograph.size
    side = int(rng.uniform(0.35, 0.9) * min(width, height))
    left, top = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    return photograph.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))


CHOOSING: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "noise": noise, "coloured noise": coloured_noise, "uniform": uniform, "gradient": gradient, "grating": grating,
}  # fmt: skip
REPORTED: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "faint noise": faint_noise, "salt and pepper": salt_and_pepper, "clouds": clouds, "chequers": chequers,
    "page": page, "shapes": shapes, "digit": digit,
}  # fmt: skip


def photographs(folder: Path | None) -> Iterator[tuple[str, Image.Image]]:
    """(name, picture): those that scikit-learn and Matplotlib bring along, and those of a folder."""
    import matplotlib
    from sklearn.datasets import load_sample_images

    images = load_sample_images()
    for name, pixels in zip(images.filenames, images.images, strict=True):
        yield f"photograph {Path(name).stem}", Image.fromarray(pixels)
    yield "photograph hopper", _read(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    for path in sorted(folder.iterdir()) if folder else ():
        if path.suffix.lower() in PHOTOGRAPHS:
            yield "photographs of the folder", _read(path)


def _read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _grey(pixels: npt.NDArray[np.number]) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _slope(rng: np.random.Generator) -> Grey:
    down, across = np.mgrid[0:SIDE, 0:SIDE]
    angle = rng.uniform(0, 2 * np.pi)
    return np.asarray(np.cos(angle) * across + np.sin(angle) * down, dtype=np.float64)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue
