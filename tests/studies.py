"""Small seeded studies on disk, and a gallery to put them in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Picture

from indexer.limits import Limits
from indexer.pipeline import Options, index
from indexer.report import Report
from indexer.sandbox import Sandbox
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from tests.dicom_files import ct_slice, save, uid
from tests.processes import light

LIMITS = Limits()


def texture(seed: int, rows: int = 64, columns: int = 64) -> np.ndarray:
    """Smooth blobs with some grain, uint8 [rows, columns]: no two seeds alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns] / max(rows, columns)
    blobs = sum(
        np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / width)
        for cx, cy, width in rng.uniform(0.05, 0.9, (4, 3)) ** [1, 1, 3]
    )
    noisy = blobs / blobs.max() * 200 + rng.normal(0, 8, (rows, columns))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def write_pictures(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """``count`` grey PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{n:03d}.png" for n in range(count)]
    for n, path in enumerate(paths):
        Picture.fromarray(texture(1000 * seed + n)).save(path)
    return paths


def write_series(
    folder: Path, slices: int, *, seed: int = 0, patient: str = "P1", scattered: bool = False
) -> list[Path]:
    """A CT series of ``slices`` files; ``scattered`` puts every other file into another folder."""
    paths = []
    for n in range(slices):
        place = folder / ("odd" if scattered and n % 2 else "even")
        place.mkdir(parents=True, exist_ok=True)
        made = ct_slice(
            (0.0, 0.0, 3.0 * n), instance=n + 1, seed=seed, size=32, PatientID=patient,
            SeriesInstanceUID=uid(100, seed), StudyInstanceUID=uid(200, seed),
        )  # fmt: skip
        paths.append(save(made, place / f"s{seed}-{(n * 7) % slices:03d}.dcm"))
    return paths


def open_gallery(home: Path, **settings: object) -> Gallery:
    return Gallery.open(Settings(home=home, **{**light(home), **settings}), create=True)


def index_all(gallery: Gallery, sandbox: Sandbox, *paths: Path, **options: object) -> Report:
    return index(gallery, sandbox, list(paths), Options(**options))


def contents(gallery: Gallery) -> dict[str, tuple[str, bytes, bytes]]:
    """What a gallery holds, whatever the keys: case id -> (content, vector bytes, slice bytes)."""
    found = {}
    for case in gallery.catalog.list_cases(limit=100_000):
        _, embedding = gallery.catalog.embedding(case.case_id)
        found[case.case_id] = (case.content_sha256, embedding.vector.tobytes(), embedding.slices.tobytes())
    return found
