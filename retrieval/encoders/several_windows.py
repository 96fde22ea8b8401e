"""CT through several windows, each encoded by itself: the mean of their unit rows, at length 1, is the row.

Averaged rather than set side by side, so that the space stays that of the encoder: as many numbers, and a sentence can
still be compared. Frames that no CT window applies to are encoded once, as always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from retrieval.encoders.base import AdaptableEncoder, Encoder, EncoderCard, TextEncoder, unit_rows
from retrieval.encoders.recipe import hounsfield
from retrieval.types import Image, UnitRows


class SeveralWindows:
    """One encoder, once for each window; ``card`` is that of the whole."""

    def __init__(self, encoders: Sequence[Encoder], card: EncoderCard) -> None:
        self._encoders = tuple(encoders)
        self._card = card

    @property
    def card(self) -> EncoderCard:
        return self._card

    @property
    def within(self) -> Encoder:
        """One of the encoders; they share their network."""
        return self._encoders[0]

    def encode(self, images: Sequence[Image]) -> UnitRows:
        first, *others = self._encoders
        rows = np.array(first.encode(images))
        windowed = [n for n, image in enumerate(images) if hounsfield(image)]
        if windowed and others:
            total = rows[windowed].astype(np.float64)
            for encoder in others:
                total += encoder.encode([images[n] for n in windowed])
            rows[windowed] = unit_rows(total)
        return rows


class SeveralWindowsAndText(SeveralWindows):
    """The same over an encoder with a text tower, which has nothing to do with windows."""

    def __init__(self, encoders: Sequence[Encoder], card: EncoderCard, text: TextEncoder) -> None:
        super().__init__(encoders, card)
        self._text = text

    def encode_text(self, texts: Sequence[str]) -> UnitRows:
        return self._text.encode_text(texts)


def several_windows(encoder: AdaptableEncoder, card: EncoderCard) -> Encoder:
    """``encoder`` under ``card``: once for each window where the card's recipe has windows "as vectors"."""
    recipe = card.recipe
    if not recipe.ct_windows or recipe.ct_windows_as != "vectors":
        return encoder.with_card(card)
    alone = replace(recipe, ct_windows=(), ct_windows_as="channels")
    cards = [replace(card, recipe=replace(alone, ct_window=window)) for window in recipe.ct_windows]
    encoders = [encoder.with_card(each) for each in cards]
    if isinstance(encoder, TextEncoder):
        return SeveralWindowsAndText(encoders, card, encoder)
    return SeveralWindows(encoders, card)
