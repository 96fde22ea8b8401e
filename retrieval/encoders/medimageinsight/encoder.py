"""A published folder as an encoder of frames and of sentences."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.encoders.base import EncoderCard
from retrieval.encoders.medimageinsight import layout
from retrieval.encoders.medimageinsight.checkpoint import load, read_tensors
from retrieval.encoders.medimageinsight.config import Config, read_config
from retrieval.encoders.medimageinsight.image import image_features
from retrieval.encoders.medimageinsight.model import build_model
from retrieval.encoders.medimageinsight.text import text_features
from retrieval.encoders.medimageinsight.tokenizer import Tokenizer
from retrieval.encoders.text_tower import ImageTextTowers
from retrieval.encoders.tower import choose_device
from retrieval.encoders.weights import state_sha256
from retrieval.errors import UsageError

if TYPE_CHECKING:
    import torch

_LARGEST_LOGARITHM = 20.0  # a scale of 5e8: none is trained past 100


def open_folder(folder: Path, device: str | None) -> ImageTextTowers:
    """The model of a published folder. NotFoundError for absent files, UsageError for what does not fit together."""
    chosen = choose_device(device)
    files = layout.find(folder)
    config = read_config(files.config)
    tokenizer = Tokenizer.read(files.vocabulary, files.merges, config.text.context)
    model: Any = build_model(config, len(tokenizer))
    load(model, read_tensors(files.checkpoint))
    card = _card(folder, config, model)
    return _towers(card, config, model.to(chosen), tokenizer, chosen)


def _card(folder: Path, config: Config, model: Any) -> EncoderCard:
    return EncoderCard(
        name="medimageinsight",
        spec=f"medimageinsight:{folder}",
        dim=config.dim,
        recipe=config.recipe,
        weights_sha256=state_sha256(model.state_dict(), {"image": asdict(config.image), "text": asdict(config.text)}),
        licence="MIT",
        text=True,
        logit_scale=_scale(float(model.logit_scale)),
    )


def _scale(logarithm: float) -> float:
    """What cosines are multiplied by: of NaN or infinity every probability would be none."""
    if not abs(logarithm) <= _LARGEST_LOGARITHM:
        raise UsageError(
            f"The weights' logit_scale must be a logarithm within {_LARGEST_LOGARITHM:g} of 0, as 4.5; "
            f"got {logarithm:g}: fetch them again."
        )
    return math.exp(logarithm)


def _towers(
    card: EncoderCard, config: Config, model: Any, tokenizer: Tokenizer, device: torch.device
) -> ImageTextTowers:
    """What comes out of the two forward functions is in one space and not yet of length 1."""
    import torch

    def images(pixels: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = image_features(model.image_encoder, config.image, pixels) @ model.image_projection
        return rows

    def texts(ids: torch.Tensor) -> torch.Tensor:
        features = text_features(model.lang_encoder, config.text, ids, tokenizer.end)
        rows: torch.Tensor = features @ model.lang_projection
        return rows

    return ImageTextTowers(card, images, texts, lambda sentences: torch.from_numpy(tokenizer(sentences)), device)
