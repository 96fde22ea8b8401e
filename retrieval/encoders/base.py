"""What an encoder is. One method to implement; preprocessing is data (a ``Recipe``), identity is a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol, runtime_checkable

from retrieval.encoders.recipe import Recipe
from retrieval.types import Image, UnitRows


@dataclass(frozen=True, slots=True)
class EncoderCard:
    """An encoder declared by data. ``spec`` is what a user types (``classical``, ``timm:resnet50``, ``open_clip:...``)."""

    name: str
    spec: str
    dim: int
    recipe: Recipe
    weights_sha256: str = ""  # "" only for an encoder without weights
    version: str = "1"  # raised when the code that computes the vectors changes them
    dtype: str = "float32"
    licence: str = ""
    kind: str = "2D"
    text: bool = False
    logit_scale: float | None = None
    notes: str = field(default="", compare=False)

    @property
    def fingerprint(self) -> str:
        """``NAME-`` and 12 hex digits over weights, recipe, version, dtype and dim. Vectors of two never meet."""
        facts = {k: v for k, v in asdict(self).items() if k not in {"notes", "licence"}}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return f"{self.name}-{digest[:12]}"


class Encoder(Protocol):
    """Turns frames into unit vectors. Same image, same vector: whatever the batch, the process or the hour."""

    @property
    def card(self) -> EncoderCard: ...

    def encode(self, images: Sequence[Image]) -> UnitRows:
        """Unit rows [len(images), card.dim], in order. An empty sequence gives [0, dim].

        A constant or empty-looking frame must still give a finite unit row.
        """
        ...


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """An encoder with a text tower in the same space."""

    def encode_text(self, texts: Sequence[str]) -> UnitRows: ...
