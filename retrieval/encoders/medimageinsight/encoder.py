"""The model as an encoder of frames and of sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.encoders.base import EncoderCard, unit_rows
from retrieval.encoders.medimageinsight import layout
from retrieval.encoders.medimageinsight.checkpoint import load, read_tensors
from retrieval.encoders.medimageinsight.config import Config, read_config
from retrieval.encoders.medimageinsight.image import image_features
from retrieval.encoders.medimageinsight.model import build_model
from retrieval.encoders.medimageinsight.text import text_features
from retrieval.encoders.medimageinsight.tokenizer import Tokenizer
from retrieval.encoders.tower import BATCH, ImageTower, choose_device, inference
from retrieval.encoders.weights import state_sha256
from retrieval.types import UnitRows

if TYPE_CHECKING:
    import torch


class MedImageInsight(ImageTower):
    """Image and text tower in one space."""

    def __init__(
        self, card: EncoderCard, config: Config, model: Any, tokenizer: Tokenizer, device: torch.device
    ) -> None:
        super().__init__(card, partial(_image_rows, model, config), device)
        self._model = model
        self._config = config
        self._tokenizer = tokenizer

    def encode_text(self, texts: Sequence[str]) -> UnitRows:
        """Unit rows [len(texts), card.dim]; what does not fit the context (77 tokens) is cut."""
        rows = [self._text_rows(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        return np.concatenate(rows) if rows else np.empty((0, self._card.dim), np.float32)

    def _text_rows(self, texts: Sequence[str]) -> UnitRows:
        import torch

        ids, ends = (torch.from_numpy(array).to(self._device) for array in self._tokenizer(texts))
        with self._one_at_a_time, inference():
            features = text_features(self._model.lang_encoder, self._config.text, ids, ends)
            return unit_rows((features @ self._model.lang_projection).float().cpu().numpy())


def open_folder(folder: Path, device: str | None) -> MedImageInsight:
    """The model of a published folder. NotFoundError for absent files, UsageError for what does not fit together."""
    chosen = choose_device(device)
    files = layout.find(folder)
    config = read_config(files.config)
    tokenizer = Tokenizer.read(files.vocabulary, files.merges, config.text.context)
    model: Any = build_model(config, len(tokenizer))
    load(model, read_tensors(files.checkpoint))
    card = EncoderCard(
        name="medimageinsight",
        spec=f"medimageinsight:{folder}",
        dim=config.dim,
        recipe=config.recipe,
        weights_sha256=state_sha256(model.state_dict(), {"image": asdict(config.image), "text": asdict(config.text)}),
        licence="MIT",
        text=True,
        logit_scale=math.exp(float(model.logit_scale)),
    )
    return MedImageInsight(card, config, model.to(chosen), tokenizer, chosen)


def _image_rows(model: Any, config: Config, pixels: torch.Tensor) -> torch.Tensor:
    """[n, 3, rows, columns] -> [n, dim], not yet of length 1."""
    return image_features(model.image_encoder, config.image, pixels) @ model.image_projection
