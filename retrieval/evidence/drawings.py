"""Pictures of nothing medical, drawn from a seed: what a gallery is told apart from (``retrieval.evidence.strangers``).

Seven ways of filling a frame, after what stands in for photographs in learning without any (Baradad et al., Learning to
see by looking at noise, NeurIPS 2021): heaps of leaves, flat and lit; soft patterns of a random network; strokes of a
pen; tiles; blocks on a plain; lit relief. One of two is grey, since colour alone would tell the others.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFilter

from retrieval.types import Image

OF_A_WAY = 12
SIDE = 256  # pixels
SEED = 7
_STEPS = np.linspace(0, 1, 60)[:, None]  # along a stroke

Colours = npt.NDArray[np.float64]  # [rows, columns, 3], 0 to 255, or one of them, [3]
Random = np.random.Generator


def drawings() -> tuple[Image, ...]:
    """``OF_A_WAY`` of each way, 8 bits, grey [rows, columns] and colour [rows, columns, 3] in turns."""
    return tuple(
        _frame(draw(np.random.default_rng([SEED, way, number])), grey=number % 2 == 1)
        for number in range(OF_A_WAY)
        for way, draw in enumerate(WAYS)
    )


def _frame(drawn: Colours, *, grey: bool) -> Image:
    return Image(np.round(np.clip(drawn[..., 1] if grey else drawn, 0, 255)).astype(np.uint8))


def _leaves(rng: Random) -> Colours:
    return _heap(rng, int(rng.integers(60, 500)))


def _lit_leaves(rng: Random) -> Colours:
    """Few leaves under uneven light, and grain."""
    heap = _heap(rng, int(rng.integers(15, 80)))
    light, grain = _uneven(rng, int(rng.integers(2, 5))), _uneven(rng, int(rng.integers(32, 128)))
    return np.asarray(heap * (1 + 0.35 * light) + rng.uniform(3, 25) * grain)


def _heap(rng: Random, count: int) -> Colours:
    """Polygons one over another; how many are so large falls with a power of their size, as of things in view."""
    picture = PillowImage.new("RGB", (SIDE, SIDE), _ink(rng))
    pen = ImageDraw.Draw(picture)
    for radius in np.clip(4 * (1 - rng.random(count)) ** (-1 / 1.5), 3, 150):
        centre, turns = rng.uniform(-20, SIDE + 20, 2), np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
        stretch = rng.uniform(0.5, 1.5)
        corners = centre + radius * np.stack([stretch * np.cos(turns), np.sin(turns) / stretch], axis=1)
        pen.polygon([(x, y) for x, y in corners.tolist()], fill=_ink(rng))
    return _softened(picture, rng.uniform(0, 2))


def _pattern(rng: Random) -> Colours:
    """What a small network of random weights makes of where a pixel lies."""
    down, across = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j] * rng.uniform(1, 4)
    seen = np.stack([across, down, np.hypot(across, down), np.ones_like(down)], axis=-1).reshape(-1, 4)
    for _ in range(rng.integers(2, 5)):
        seen = (np.tanh if rng.random() < 0.5 else np.sin)(seen @ rng.normal(size=(seen.shape[1], 12)))
    shown = seen @ rng.normal(size=(12, 3))
    spread = np.ptp(shown, axis=0) + 1e-9
    return np.asarray(255 * (shown - shown.min(axis=0)) / spread).reshape(SIDE, SIDE, 3)


def _strokes(rng: Random) -> Colours:
    """Curves of Bezier, on white paper or black."""
    picture = PillowImage.new("RGB", (SIDE, SIDE), (0, 0, 0) if rng.random() < 0.3 else (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.integers(4, 25)):
        points = np.repeat(rng.uniform(0, SIDE, (1, rng.integers(3, 8), 2)), len(_STEPS), axis=0)
        while points.shape[1] > 1:
            points = points[:, :-1] * (1 - _STEPS[:, :, None]) + points[:, 1:] * _STEPS[:, :, None]
        ink, width = _ink(rng), int(rng.integers(1, 5))
        for (left, top), (right, bottom) in pairwise(points[:, 0].tolist()):
            pen.line((left, top, right, bottom), fill=ink, width=width)
    return np.asarray(picture, dtype=np.float64)


def _tiles(rng: Random) -> Colours:
    """Cells of Voronoi, lit or dark towards their middles."""
    from scipy.spatial import cKDTree

    count = int(rng.integers(8, 120))
    away, nearest = cKDTree(rng.uniform(0, SIDE, (count, 2))).query(np.moveaxis(np.mgrid[0:SIDE, 0:SIDE], 0, -1))
    return np.asarray(rng.integers(0, 256, (count, 3))[nearest] + rng.uniform(-3, 3) * away[..., None])


def _blocks(rng: Random) -> Colours:
    """On a plain under a sky, the nearer the larger, with a darker side."""
    down, horizon = np.linspace(0, 1, SIDE)[:, None, None], rng.uniform(0.3, 0.7)
    top, low, far, close = rng.uniform(0, 255, (4, 3))
    sky = top + (low - top) * down / horizon
    plain = far + (close - far) * (down - horizon) / (1 - horizon)
    behind = np.where(down < horizon, sky, plain) * np.ones((1, SIDE, 1))
    picture = PillowImage.fromarray(np.clip(behind, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for nearness in np.sort(rng.uniform(0.1, 1, rng.integers(4, 20))):
        wide, high = nearness * rng.uniform(10, 80), nearness * rng.uniform(20, 140)
        left, foot = rng.uniform(-20, SIDE), SIDE * (horizon + (1 - horizon) * nearness * rng.uniform(0.3, 1))
        red, green, blue = _ink(rng)
        pen.rectangle((left, foot - high, left + wide, foot), fill=(red, green, blue))
        edge, back = (left + wide, 0.3 * wide) if left < SIDE / 2 else (left, -0.3 * wide)
        rise = 0.3 * abs(back)
        side = [(edge, foot), (edge + back, foot - rise), (edge + back, foot - 0.9 * high), (edge, foot - high)]
        pen.polygon(side, fill=(red * 3 // 5, green * 3 // 5, blue * 3 // 5))
    return _softened(picture, rng.uniform(0, 1.5)) + rng.normal(size=(SIDE, SIDE, 1)) * rng.uniform(0, 10)


def _relief(rng: Random) -> Colours:
    """A rough surface lit from one side."""
    roughness = rng.uniform(0.6, 1.3)
    heights = sum(_uneven(rng, cells)[..., 0] / cells**roughness for cells in (4, 8, 16, 32, 64))
    down, across = np.gradient(60 * heights)
    light = rng.normal(size=2)
    lit = (across * light[0] + down * light[1]) / np.sqrt(1 + across**2 + down**2)
    return np.asarray((rng.uniform(80, 233, 3)) * (1 + 0.6 * lit[..., None]))


WAYS: tuple[Callable[[Random], Colours], ...] = (_leaves, _lit_leaves, _pattern, _strokes, _tiles, _blocks, _relief)


def _uneven(rng: Random, cells: int) -> Colours:
    """Normal deviates on ``cells`` x ``cells``, and smoothly between them: [SIDE, SIDE, 1]."""
    drawn = PillowImage.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
    return np.asarray(drawn.resize((SIDE, SIDE), PillowImage.Resampling.BICUBIC), dtype=np.float64)[..., None]


def _softened(picture: PillowImage.Image, radius: float) -> Colours:
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float64)


def _ink(rng: Random) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue
