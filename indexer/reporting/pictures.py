"""Thumbnails on file, made smaller still: to be shown on the page, and to tell duplicates by."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable

import numpy as np

from retrieval.appraisal.doubles import Picture
from retrieval.appraisal.subjects import Subjects
from retrieval.appraisal.types import Appraisal
from retrieval.errors import NotFoundError
from retrieval.gallery import Gallery

SIDE, QUALITY, COMPARED = 128, 70, 32
DOUBLES_SHOWN = 12


def picture_of(gallery: Gallery, subjects: Subjects) -> Callable[[int], Picture | None]:
    """A function that gives the small grey picture of a subject, None where no thumbnail is on file."""

    def picture(row: int) -> Picture | None:
        from PIL import Image

        jpeg = _thumbnail(gallery, subjects.case_ids[row])
        if jpeg is None:
            return None
        with Image.open(io.BytesIO(jpeg)) as opened:
            small = opened.convert("L").resize((COMPARED, COMPARED), Image.Resampling.BOX)
            return np.asarray(small, dtype=np.float32)

    return picture


def shown_rows(appraisal: Appraisal) -> list[int]:
    """The subjects that the page shows: examples of confusions with their neighbours, and near-duplicates."""
    rows: set[int] = set()
    for confusion in appraisal.confusions:
        for example in confusion.examples:
            rows |= {example.query, *example.neighbours}
    for double in appraisal.doubles[:DOUBLES_SHOWN]:
        rows |= {double.first, double.second}
    return sorted(rows)


def data_urls(gallery: Gallery, subjects: Subjects, rows: Iterable[int]) -> dict[int, str]:
    """A data URL of each subject's thumbnail, at most 128 px a side, for those that have one."""
    from PIL import Image

    out = {}
    for row in rows:
        jpeg = _thumbnail(gallery, subjects.case_ids[row])
        if jpeg is None:
            continue
        with Image.open(io.BytesIO(jpeg)) as opened:
            small = opened.convert("RGB" if opened.mode not in {"L", "RGB"} else opened.mode)
            small.thumbnail((SIDE, SIDE))
            written = io.BytesIO()
            small.save(written, "JPEG", quality=QUALITY)
        out[row] = f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"
    return out


def _thumbnail(gallery: Gallery, case_id: str) -> bytes | None:
    try:
        return gallery.catalog.thumbnail(case_id)
    except NotFoundError:
        return None
