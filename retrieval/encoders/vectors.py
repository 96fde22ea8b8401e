"""``vectors:NAME?dim=N``: an encoder that is only a name, for vectors that were computed elsewhere.

A gallery of published vectors is bound to it, so that it can be evaluated and asked by the cases on file, and so that
vectors of two releases never meet: the fingerprint is over name and dimension.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from retrieval.encoders.base import EncoderCard, KnownEncoder
from retrieval.encoders.recipe import Recipe
from retrieval.errors import UsageError
from retrieval.types import Image, UnitRows

MAX_DIM = 65_536
KIND = "vectors"
_SPEC = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._/-]{0,99})\?dim=(?P<dim>[1-9][0-9]{0,5})")


class NamedVectors:
    """Has a card and a dimension, and encodes nothing."""

    def __init__(self, card: EncoderCard) -> None:
        self._card = card

    @property
    def card(self) -> EncoderCard:
        return self._card

    def encode(self, images: Sequence[Image]) -> UnitRows:
        """UsageError always: it says what can be asked instead."""
        raise UsageError(
            f"This gallery has no encoder: its vectors, '{self._card.name}', were computed elsewhere and imported. Ask "
            "by a case on file (its case id), or index the images into a new data directory with an encoder."
        )


def named_vectors_spec(name: str, dim: int) -> str:
    """The spec of vectors known by a name; UsageError for a name or dimension that can't be in one."""
    spec = f"{name}?dim={dim}"
    open_encoder(spec)
    return f"vectors:{spec}"


def open_encoder(rest: str, device: str | None = None) -> NamedVectors:
    """``rest``: as ``my-release?dim=512``. UsageError for another form. ``device`` does not matter."""
    stated = _SPEC.fullmatch(rest)
    if stated is None or int(stated["dim"]) > MAX_DIM:
        raise UsageError(
            "Expected vectors:NAME?dim=N, NAME of at most 100 letters, digits and . _ / -, N from 1 to "
            f"{MAX_DIM}; got 'vectors:{rest}'."
        )
    return NamedVectors(
        EncoderCard(
            name=stated["name"],
            spec=f"vectors:{rest}",
            dim=int(stated["dim"]),
            recipe=Recipe(name="none", size=(1, 1)),
            kind=KIND,
            notes="no text tower and no encoder: vectors computed elsewhere",
        )
    )


def known() -> Sequence[KnownEncoder]:
    """None by name: each exists where it was imported."""
    return ()
