"""Galleries of generated vectors in which a label is hidden, told, or absent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrieval import Gallery
from retrieval.adapters.head import MetricHead
from retrieval.encoders.base import EncoderCard, unit_rows
from retrieval.encoders.recipe import Recipe
from retrieval.settings import Settings
from retrieval.types import Case, CaseKind, EmbeddedCase, Embedding, FrameRef, Image, Label, UnitRows

DIM = 24
LOUD = DIM - 3  # directions that vary a lot and say nothing


class PixelEncoder:
    """The first pixels of a frame as its vector."""

    card = EncoderCard(name="pixels", spec="classical", dim=DIM, recipe=Recipe(name="pixels", size=(8, 8)))

    def encode(self, images: Sequence[Image]) -> UnitRows:
        rows = [np.resize(np.asarray(image.pixels, dtype=np.float64), DIM) for image in images]
        return unit_rows(np.array(rows).reshape(len(images), DIM))


def open_small(home: Path, database_url: str = "", **settings: object) -> Gallery:
    """A gallery of vectors of ``DIM`` numbers."""
    return Gallery.open(Settings(home=home, database_url=database_url, **settings), create=True, encoder=PixelEncoder())


def hidden_label(count: int, seed: int = 0, classes: int = 3, dim: int = DIM) -> tuple[UnitRows, list[str]]:
    """Unit rows whose class lies in three faint directions under loud ones, two rows to a patient."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat(rng.integers(0, classes, (count + 1) // 2), 2)[:count]
    loud = rng.standard_normal((count, LOUD))
    faint = 0.35 * np.eye(3)[kinds % 3] + 0.06 * rng.standard_normal((count, 3))
    nothing = np.zeros((count, dim - DIM))
    return unit_rows(np.hstack([loud / np.sqrt(LOUD), faint, nothing])), [f"kind {kind}" for kind in kinds]


def cases_of(
    rows: UnitRows,
    values: Sequence[str],
    *,
    label: str = "finding",
    first: int = 0,
    slices: int = 1,
    studies: bool = False,
) -> list[EmbeddedCase]:
    """One case a row, two cases to a patient; ``slices``: rows of a volume whose mean it is, near it."""
    cases = []
    for n, (row, value) in enumerate(zip(rows, values, strict=True), start=first):
        near = (
            unit_rows(row + 0.05 * np.random.default_rng(n).standard_normal((slices, len(row))))
            if slices > 1
            else row[None]
        )
        cases.append(
            EmbeddedCase(
                Case(
                    case_id=f"case-{n:05d}", kind=CaseKind.VOLUME if slices > 1 else CaseKind.IMAGE,
                    content_sha256=f"content {n}", pixel_sha256=f"pixels {n}",
                    patient_key="" if studies else f"patient {n // 2}", study_uid=f"1.2.{n // 2}",
                    labels=(Label(label, value),), frames=tuple(FrameRef(0, i) for i in range(slices)),
                ),
                Embedding(row, near, tuple(range(slices))),
            )
        )  # fmt: skip
    return cases


def random_head(base: str, seed: int, dim: int = DIM, dim_out: int | None = None) -> MetricHead:
    """A linear head that means nothing."""
    rng = np.random.default_rng(seed)
    out = dim_out or dim
    arrays = {"weight": rng.standard_normal((dim, out)), "bias": rng.standard_normal(out)}
    return MetricHead("linear", base, {name: array.astype(np.float32) for name, array in arrays.items()})
