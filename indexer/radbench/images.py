"""Images of questions, embedded as queries are. Arrays, which RadBench's volumes are, become files that can be read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.query import QueryCase, read_query
from indexer.sandbox import Sandbox
from retrieval.errors import NotFoundError, RejectedInput
from retrieval.gallery import Gallery

MAX_CELLS = 1 << 28  # of one array


@dataclass(frozen=True, slots=True)
class Asked:
    """The images that could be read, as queries, and how many could not."""

    read: dict[Path, QueryCase]
    unreadable: int


def ask_with(gallery: Gallery, sandbox: Sandbox, images: Iterable[Path], done: Callable[[], None]) -> Asked:
    """Embed each image once. ``done`` is called after each."""
    read: dict[Path, QueryCase] = {}
    unreadable = 0
    with tempfile.TemporaryDirectory(prefix="precedent-radbench-") as scratch:
        for number, image in enumerate(dict.fromkeys(images)):
            try:
                path = _volume(image, Path(scratch) / f"{number}.nii.gz") if image.suffix == ".npy" else image
                read[image] = read_query(gallery, sandbox, [path])
            except (RejectedInput, NotFoundError):
                unreadable += 1
            done()
    return Asked(read, unreadable)


def _volume(array: Path, place: Path) -> Path:
    """The first scan of an array [scans, 3, height, width, slices], as RadFM stores them, as a grey NIfTI file.

    Also [3, height, width, slices] and [height, width, slices]. Spacing is not known and taken as 1 mm.
    """
    import nibabel

    try:
        values = np.load(array, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RejectedInput("open", "An array that can't be read: expected a .npy file of numbers.") from error
    if values.dtype.kind not in "fiu" or values.ndim not in {3, 4, 5} or values.size > MAX_CELLS or not values.size:
        raise RejectedInput("open", f"Expected an array [scans, 3, height, width, slices], got {values.shape}.")
    scan = values[0] if values.ndim == 5 else values
    grey = np.asarray(scan.mean(axis=0) if scan.ndim == 4 else scan, dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(grey.transpose(1, 0, 2), np.eye(4)), place)
    return place
