"""Encoders by name: ``compact``, ``classical``, ``timm:NAME``, ``open_clip:NAME/PRETRAINED``.

Any of them may end in ``?recipe=NAME``: another preparation of the frames, by name (``recipes``).

A family is one module and one line below. The module offers ``open_encoder(rest, device)``, where ``rest`` is what
follows the colon, and ``known()``, which must be cheap: heavy libraries are imported only when an encoder is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from retrieval.encoders.base import Encoder, EncoderCard, KnownEncoder, TextEncoder, unit_rows
from retrieval.encoders.pooling import Pooling, choose_slices, gallery_fingerprint, pool
from retrieval.encoders.recipe import Recipe
from retrieval.encoders.recipes import KnownRecipe, known_recipes, prepared, split_recipe
from retrieval.errors import NotFoundError

__all__ = [
    "Encoder",
    "EncoderCard",
    "KnownEncoder",
    "KnownRecipe",
    "Pooling",
    "Recipe",
    "TextEncoder",
    "choose_slices",
    "full_spec",
    "gallery_fingerprint",
    "known_encoders",
    "known_recipes",
    "open_encoder",
    "pool",
    "unit_rows",
]

_FAMILIES = {
    "compact": "retrieval.encoders.compact",
    "classical": "retrieval.encoders.classical",
    "timm": "retrieval.encoders.timm",
    "open_clip": "retrieval.encoders.open_clip",
    "medimageinsight": "retrieval.encoders.medimageinsight",
    "transformers": "retrieval.encoders.transformers",
    "onnx": "retrieval.encoders.files.onnx_file",
    "torch": "retrieval.encoders.files.torch_file",
    "vectors": "retrieval.encoders.vectors",
}


class Family(Protocol):
    """What the module of a family offers."""

    def open_encoder(self, rest: str, device: str | None) -> Encoder: ...

    def known(self) -> Sequence[KnownEncoder]: ...


def open_encoder(spec: str, *, device: str | None = None) -> Encoder:
    """The encoder a user named. ``device``: a torch device ("cpu", "cuda:0"); None takes CUDA where there is one.

    Raises NotFoundError for an unknown name or absent weights, UsageError for a malformed name or weights that do not
    fit, MissingExtra for an absent library.
    """
    own, recipe = split_recipe(spec)
    family, _, rest = own.partition(":")
    if family not in _FAMILIES:
        known = ", ".join(sorted(_FAMILIES))
        raise NotFoundError(f"There is no encoder '{spec}': the families are {known} (see 'precedent encoders').")
    encoder = _family(family).open_encoder(rest, device)
    return prepared(encoder, recipe) if recipe else encoder


def full_spec(spec: str) -> str:
    """The spec with a path in it made absolute, where its family does so (``full_spec(rest)`` of its module).

    So a gallery keeps it, and so two specs are compared: ``x:weights`` and ``x:./weights`` are one encoder.
    """
    own, recipe = split_recipe(spec)
    family, _, rest = own.partition(":")
    expand = getattr(_family(family), "full_spec", None) if rest and family in _FAMILIES else None
    own = f"{family}:{expand(rest)}" if expand else own
    return f"{own}?recipe={recipe}" if recipe else own


def known_encoders() -> tuple[KnownEncoder, ...]:
    """What can be named, in the order of the families, with what is still missing to use each on this machine."""
    return tuple(entry for family in _FAMILIES for entry in _family(family).known())


def _family(name: str) -> Family:
    return cast("Family", import_module(_FAMILIES[name]))
