"""The default encoder: a classical descriptor of structure, texture, intensity and colour. No weights, no download."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.encoders.base import EncoderCard, KnownEncoder, unit_rows
from retrieval.encoders.classical_blocks import structure
from retrieval.encoders.recipe import Recipe, fit, luminance, window
from retrieval.errors import UsageError
from retrieval.types import Image, UnitRows

CARD = EncoderCard(
    name="classical",
    spec="classical",
    dim=390,
    recipe=Recipe(name="classical", size=(128, 128), stretch_8bit=True),
    version="0",
    licence="Apache-2.0",
    notes="no weights, no download",
)


class ClassicalEncoder:
    """Deterministic to the bit: one image at a time, no threads, no random numbers."""

    @property
    def card(self) -> EncoderCard:
        return CARD

    def encode(self, images: Sequence[Image]) -> UnitRows:
        rows = [structure(luminance(fit(CARD.recipe, window(CARD.recipe, image)))) for image in images]
        return unit_rows(np.stack(rows)) if rows else np.empty((0, CARD.dim), np.float32)


def open_encoder(rest: str, device: str | None) -> ClassicalEncoder:
    """``rest`` must be empty: there is one classical encoder."""
    if rest:
        raise UsageError(f"Expected 'classical' alone, got 'classical:{rest}'.")
    return ClassicalEncoder()


def known() -> Sequence[KnownEncoder]:
    return (KnownEncoder(CARD.spec, CARD.dim, CARD.recipe, CARD.licence, notes=CARD.notes),)
