"""What an encoder is. One method to implement; preprocessing is data (a ``Recipe``), identity is a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from retrieval.encoders.recipe import LATER, Recipe, stated
from retrieval.encoders.volumes.recipe import VolumeRecipe
from retrieval.encoders.volumes.volume import Volume
from retrieval.errors import RejectedInput
from retrieval.types import Image, UnitRows


@dataclass(frozen=True, slots=True)
class EncoderCard:
    """An encoder declared by data. ``spec`` is what a user types (``compact``, ``timm:NAME``, ``open_clip:...``)."""

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
    logit_scale: float | None = None  # what a cosine of image and text is multiplied by before softmax
    notes: str = field(default="", compare=False)
    volume: VolumeRecipe | None = field(default=None, metadata=LATER)  # of kind 3D, instead of ``recipe``
    logit_bias: float | None = None  # what is added after the scale by towers trained with a sigmoid (SigLIP)

    @property
    def fingerprint(self) -> str:
        """``NAME-`` and 12 hex digits over all that decides a vector: name, weights, recipe, version, dtype, dim.

        Not over ``spec``: the same weights from the hub, a tag or a folder are the same encoder. Nor over ``text``:
        a tokenizer changes no image's vector. Vectors of two fingerprints never meet.
        """
        aside = {"spec", "text", "licence", "notes", "logit_bias"}
        facts = {name: value for name, value in stated(self).items() if name not in aside}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return f"{self.name}-{digest[:12]}"

    @property
    def encodes(self) -> bool:
        """False for vectors that were computed elsewhere, of which only the name is known (``encoders.vectors``)."""
        return self.kind != "vectors"


@dataclass(frozen=True, slots=True)
class KnownEncoder:
    """One line of the list of encoders. ``dim``, ``size`` (rows, columns; or slices, rows, columns) and ``recipe`` are
    None where only opening the weights can tell.

    ``missing``: what keeps it from being used on this machine and the way to mend that, or "".
    """

    spec: str
    dim: int | None
    recipe: Recipe | None
    licence: str
    missing: str = ""
    text: bool = False
    notes: str = ""
    kind: str = "2D"
    size: tuple[int, ...] | None = None
    recipe_name: str = ""  # where the recipe itself is not known yet


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
class AdaptableEncoder(Encoder, Protocol):
    """An encoder whose preparation can be exchanged, as ``SPEC?recipe=NAME`` does (``retrieval.encoders.recipes``)."""

    def with_card(self, card: EncoderCard) -> Encoder:
        """The same network, its weights shared, under a card with another recipe, hence another fingerprint."""
        ...


@runtime_checkable
class BatchingEncoder(Encoder, Protocol):
    """An encoder that says how many frames it is best given at a time."""

    @property
    def batch_frames(self) -> int:
        """Frames it runs together. It may grow when a path has been chosen, by the memory of a GPU."""
        ...


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """An encoder with a text tower in the same space."""

    def encode_text(self, texts: Sequence[str]) -> UnitRows: ...


@dataclass(frozen=True, slots=True)
class VolumeRows:
    """What a 3D encoder makes of a volume: a row for each patch, and which slices the patch lies in.

    ``rows``: [patches, dim], pooled as the rows of slices are. ``middles``: the slice nearest each patch's centre.
    ``spans``: its first and last slice, both covered. Slices are numbered from 0 as in the volume.
    """

    rows: UnitRows
    middles: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


@runtime_checkable
class VolumeEncoder(Encoder, Protocol):
    """An encoder of kind 3D: its card has a ``volume`` recipe. ``encode`` refuses frames with a RejectedInput."""

    def encode_volume(self, volume: Volume) -> VolumeRows:
        """At least one row. Same volume, same rows. RejectedInput for a volume it was not made for."""
        ...


def unit_rows(rows: npt.NDArray[Any]) -> UnitRows:
    """Rows of any float type, [n, dim], scaled to length 1 as float32; a zero row becomes the flat unit row.

    Raises RejectedInput for a row that is not finite: such a vector would poison every search.
    """
    exact = np.asarray(rows, dtype=np.float64)
    if not np.isfinite(exact).all():
        raise RejectedInput(
            "embed", "The encoder gave NaN or infinity: check its weights and the number type it runs in."
        )
    peak = np.abs(exact).max(axis=1, keepdims=True, initial=0.0)
    exact = np.where(peak > 0, exact / np.where(peak > 0, peak, 1), 1.0)  # squares of tiny rows would vanish
    return np.ascontiguousarray(exact / np.linalg.norm(exact, axis=1, keepdims=True), dtype=np.float32)
