"""MedImageInsight (Codella et al. 2024, arXiv:2410.06542), image and text: ``medimageinsight:FOLDER``.

The folder is the published one: ``config.yaml``, the checkpoint under ``vision_model``, the tokenizer under
``language_model``. Everything is built from the configuration, so smaller and larger models of the same architecture
open the same way. The recipe is the evaluation preprocessing the configuration states;
``?recipe=jpeg-512-q75-v1`` prepares as the vendor's own endpoint does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.encoders.base import KnownEncoder
from retrieval.encoders.medimageinsight.config import PUBLISHED
from retrieval.encoders.recipes import named_recipe
from retrieval.encoders.weights import absolute
from retrieval.errors import UsageError

if TYPE_CHECKING:
    from retrieval.encoders.text_tower import ImageTextTowers

_ENDPOINT = "jpeg-512-q75-v1"
_NEEDS = "its weights: download the published folder (MIT licence) and name it in place of FOLDER"


def known() -> Sequence[KnownEncoder]:
    """The published model in both its preparations. Whether FOLDER holds it, only opening it can tell."""
    own, endpoint = PUBLISHED.recipe, named_recipe(PUBLISHED.recipe, _ENDPOINT)
    return (
        KnownEncoder("medimageinsight:FOLDER", PUBLISHED.dim, own, "MIT", _NEEDS, text=True),
        KnownEncoder(
            f"medimageinsight:FOLDER?recipe={_ENDPOINT}",
            PUBLISHED.dim,
            endpoint,
            "MIT",
            _NEEDS,
            text=True,
            notes="prepared as the vendor's own endpoint does",
        ),
    )


def full_spec(rest: str) -> str:
    """``rest`` with an absolute path: a gallery keeps it, and is opened from other folders too."""
    return str(absolute(rest))


def open_encoder(rest: str, device: str | None) -> ImageTextTowers:
    """``rest``: the folder; a relative path and ``~`` are understood."""
    from retrieval.encoders.medimageinsight.encoder import open_folder

    if not rest:
        raise UsageError("Expected medimageinsight:FOLDER with the folder that holds config.yaml; the name is empty.")
    return open_folder(Path(full_spec(rest)), device)
