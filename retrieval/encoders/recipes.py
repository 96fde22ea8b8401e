"""Named, versioned preparations a user can put in place of an encoder's own: ``SPEC?recipe=NAME``.

``timm:resnet50.a1_in1k?recipe=ct-channels-v1``, ``medimageinsight:FOLDER?recipe=jpeg-512-q75-v1``,
``open_clip:...?recipe=ct-lung-v1+letterbox-v1``: the suffix follows any spec of any family, several names are joined by
``+``. Each changes a few fields of the encoder's recipe and leaves the rest (size, mean, std) as it was trained with.
What results is in the fingerprint, so vectors of two preparations never meet. A name's meaning never changes: another
preparation is another name.

``retrieval.encoders.open_encoder`` cuts the suffix off before a family sees the spec, opens the encoder, and calls its
``with_card`` (``AdaptableEncoder``): that method is all a family needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from retrieval.encoders.base import AdaptableEncoder, Encoder, EncoderCard
from retrieval.encoders.recipe import RawRecipe, Recipe
from retrieval.errors import NotFoundError, UsageError

_MARK = "?recipe="
_LUNG, _SOFT, _BONE, _BRAIN = (-600.0, 1500.0), (40.0, 400.0), (400.0, 1800.0), (40.0, 80.0)  # (centre, width) in HU


@dataclass(frozen=True, slots=True)
class KnownRecipe:
    """A preparation by name. ``changes``: the fields of a ``Recipe`` that it sets, with their values."""

    name: str
    about: str
    changes: tuple[tuple[str, Any], ...]


def _known(name: str, about: str, **changes: Any) -> KnownRecipe:
    return KnownRecipe(name, about, tuple(sorted(changes.items())))


_RECIPES = {
    recipe.name: recipe
    for recipe in (
        _known("ct-soft-v1", "CT at 40/400 HU, one frame", ct_window=_SOFT, ct_windows=()),
        _known("ct-lung-v1", "CT at -600/1500 HU, one frame", ct_window=_LUNG, ct_windows=()),
        _known("ct-bone-v1", "CT at 400/1800 HU, one frame", ct_window=_BONE, ct_windows=()),
        _known("ct-brain-v1", "CT at 40/80 HU, one frame", ct_window=_BRAIN, ct_windows=()),
        _known(
            "ct-channels-v1",
            "CT at -600/1500, 40/400 and 400/1800 HU as red, green and blue of one frame",
            ct_windows=(_LUNG, _SOFT, _BONE),
            ct_windows_as="channels",
        ),
        _known(
            "ct-vectors-v1",
            "CT at -600/1500, 40/400 and 400/1800 HU, each encoded by itself, their unit rows averaged",
            ct_windows=(_LUNG, _SOFT, _BONE),
            ct_windows_as="vectors",
        ),
        _known(
            "mr-percentiles-v1",
            "MR by the percentiles of each frame, its own window aside",
            percentile_modalities=("MR",),
        ),
        _known(
            "xr-percentiles-v1",
            "X-ray by the percentiles of each frame, its own window aside",
            percentile_modalities=("CR", "DR", "DX", "MG", "RF", "RG", "XA", "XR"),
        ),
        _known(
            "percentiles-v1",
            "all but CT by the percentiles of each frame, windows in files aside",
            use_file_window=False,
        ),
        _known(
            "file-window-v1",
            "the window in the file where there is one",
            use_file_window=True,
            percentile_modalities=(),
        ),
        _known("squash-v1", "resized without regard to shape, nothing cut off", resize="squash", crop_fraction=1.0),
        _known("letterbox-v1", "resized in shape, bordered", resize="pad", crop_fraction=1.0),
        _known("centre-crop-v1", "resized in shape, what overhangs cut off", resize="crop", crop_fraction=1.0),
        _known("jpeg-512-q75-v1", "first squashed to 512 x 512 and through a JPEG of quality 75", reencode=(512, 75)),
    )
}


def known_recipes() -> tuple[KnownRecipe, ...]:
    """Every name that can follow ``?recipe=``."""
    return tuple(_RECIPES.values())


def split_recipe(spec: str) -> tuple[str, str]:
    """(the spec a family understands, the names after ``?recipe=`` or "")."""
    own, mark, names = spec.rpartition(_MARK)
    if not mark:
        return spec, ""
    if not names:
        raise UsageError(f"The spec '{spec}' names no recipe: expected one of {', '.join(_RECIPES)}.")
    return own, names


def named_recipe(own: Recipe, names: str) -> Recipe:
    """An encoder's ``own`` recipe with the changes of ``names`` (joined by ``+``).

    NotFoundError for an unknown name, UsageError for two that contradict each other or for what the encoder can't take.
    """
    changes: dict[str, Any] = {}
    chosen = sorted(set(names.split("+")))  # in whatever order they are joined, they are one preparation
    for name in chosen:
        if name not in _RECIPES:
            raise NotFoundError(f"There is no recipe '{name}': expected one of {', '.join(_RECIPES)}.")
        for field, value in _RECIPES[name].changes:
            if changes.setdefault(field, value) != value:
                raise UsageError(f"The recipes '{names}' contradict each other in {field}: name only one of them.")
    return replace(own, name="+".join((own.name, *chosen)), **changes)


def prepared(encoder: Encoder, names: str) -> Encoder:
    """The encoder with the preparation ``names``, under a card and a fingerprint of its own."""
    from retrieval.encoders.several_windows import several_windows

    card = encoder.card
    if not isinstance(encoder, AdaptableEncoder) or card.kind != "2D" or isinstance(card.recipe, RawRecipe):
        raise UsageError(f"The preparation of the encoder '{card.name}' can't be exchanged: leave ?recipe= out.")
    recipe = named_recipe(card.recipe, names)
    changed: EncoderCard = replace(card, recipe=recipe, spec=f"{card.spec}{_MARK}{names}")
    return several_windows(encoder, changed)
