"""The default encoder: a classical descriptor of structure, texture and colour. No weights, no download, no threads.

A frame is windowed, squashed to 128 x 128 and, when of 8 bits, stretched to its own percentiles. Three blocks
(``classical_blocks``) describe it: structure (390 values), spectrum (72) and colour (24). Each is centred on what
featureless noise would give, compressed by a signed root, scaled to length 1 and weighted; together they are the row.

Why these: ``benchmarks/classical_choice.py`` puts them beside histograms of gradients, Gabor energies, local binary
patterns, local phase quantisation, intensity histograms and thumbnails, on the train part of ten labelled sets
(leave-one-patient-out P@5, mean over sets). Log-covariances of multi-scale features were far ahead alone, colour and
the spectrum gave most on top, and none of the others, added to these, raised the mean.
On the train part the mean is 0.550 (chance 0.293, an ImageNet MobileNetV2 0.533); on the test part, measured once the
choice was made, 0.507 (chance 0.265). A frame of 384 x 384 takes 3 ms on one thread.

Why centred: rows of logarithms all point the same way, and two frames at random would have a similarity of 0.94; now
it is 0.64 +- 0.15, for 0.002 of P@5. The centre is no average of images: it is the mean descriptor of seeded noise
with the spectrum that pictures have, so it is the same everywhere and knows no data set. It is taken off by four
fifths, because the rest of the common part keeps flat frames apart from contrasty ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from retrieval.encoders.base import EncoderCard, KnownEncoder, unit_rows
from retrieval.encoders.classical_blocks import COLOUR_LENGTH, SIDE, Block, colour, spectrum, structure
from retrieval.encoders.recipe import Bytes, Recipe, fit, luminance, stretch, window
from retrieval.errors import UsageError
from retrieval.types import Image, UnitRows

CARD = EncoderCard(
    name="classical",
    spec="classical",
    dim=390 + 72 + COLOUR_LENGTH,
    recipe=Recipe(name="classical", size=(SIDE, SIDE)),
    version="1",
    licence="Apache-2.0",
    notes="no weights, no download",
)
CENTRED = 0.8  # how much of the centre is taken off
_SPECTRUM_WEIGHT = 0.5  # of a block in the similarity, next to 1 for structure
_COLOUR_SOFTNESS = 0.5  # length of a colour block that counts half: tints of grey frames stay faint
_NOISE_SLOPES = (1.0, 1.25, 1.5, 1.75)  # amplitude falls as frequency ** -slope; photographs and radiographs lie here
_NOISE_FRAMES = 32


class ClassicalEncoder:
    """Deterministic to the bit: one frame at a time, nothing random, nothing that depends on threads."""

    def __init__(self, card: EncoderCard = CARD) -> None:
        self._card = card

    @property
    def card(self) -> EncoderCard:
        return self._card

    def with_card(self, card: EncoderCard) -> ClassicalEncoder:
        return ClassicalEncoder(card)

    def encode(self, images: Sequence[Image]) -> UnitRows:
        rows = [describe(image, self._card.recipe) for image in images]
        return unit_rows(np.stack(rows)) if rows else np.empty((0, CARD.dim), np.float32)


def open_encoder(rest: str, device: str | None) -> ClassicalEncoder:
    """``rest`` must be empty: there is one classical encoder. It runs on the CPU whatever ``device`` says."""
    if rest:
        raise UsageError(f"Expected 'classical' alone, got 'classical:{rest}'.")
    return ClassicalEncoder()


def known() -> Sequence[KnownEncoder]:
    return (KnownEncoder(CARD.spec, CARD.dim, CARD.recipe, CARD.licence, notes=CARD.notes),)


def describe(image: Image, recipe: Recipe = CARD.recipe) -> Block:
    """The row of a frame before it is scaled to length 1: [486]."""
    frame = fit(recipe, window(recipe, image))
    grey = luminance(frame)
    if image.pixels.dtype == np.uint8:  # others have been windowed from their own values already
        grey = stretch(grey, recipe.percentiles)
    shape = structure(grey) - CENTRED * noise_centre(structure)
    grain = spectrum(grey) - CENTRED * noise_centre(spectrum)
    tint = colour(frame)
    return np.concatenate(
        [
            _scaled(np.sign(shape) * np.sqrt(np.abs(shape))),
            _scaled(grain) * np.sqrt(_SPECTRUM_WEIGHT),
            tint / (np.linalg.norm(tint) + _COLOUR_SOFTNESS),
        ]
    )


def _scaled(block: Block) -> Block:
    length = float(np.linalg.norm(block))
    return block / length if length > 0 else block


@cache
def noise_centre(block: Callable[[Bytes], Block]) -> Block:
    """The mean of a block over seeded noise frames: what a picture with a natural spectrum and no content gives."""
    total = sum(block(_noise_frame(_NOISE_SLOPES[seed % len(_NOISE_SLOPES)], seed)) for seed in range(_NOISE_FRAMES))
    return np.asarray(total) / _NOISE_FRAMES


def _noise_frame(slope: float, seed: int) -> Bytes:
    """SIDE x SIDE noise with the spectrum of pictures. RandomState, because its stream is frozen for good."""
    down, across = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE), indexing="ij")
    frequency = np.hypot(down, across)
    frequency[0, 0] = 1
    white = np.random.RandomState(seed).standard_normal((SIDE, SIDE))
    noise = np.fft.ifft2(np.fft.fft2(white) / frequency**slope).real
    return stretch(noise, CARD.recipe.percentiles)
