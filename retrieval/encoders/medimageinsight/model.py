"""Both towers and their projections into one space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.encoders.medimageinsight.config import Config
from retrieval.encoders.medimageinsight.image import build_image_tower
from retrieval.encoders.medimageinsight.text import build_text_tower

if TYPE_CHECKING:
    import torch


def build_model(config: Config, vocabulary: int) -> torch.nn.Module:
    """The model without weights, on torch's "meta" device: it takes no memory until a checkpoint is loaded.

    Children are named as checkpoints name them: ``image_encoder``, ``lang_encoder``, ``image_projection``,
    ``lang_projection`` and ``logit_scale`` (the logarithm of the factor).
    """
    import torch
    from torch import nn

    with torch.device("meta"):
        model = nn.Module()
        model.image_encoder = build_image_tower(config.image)
        model.lang_encoder = build_text_tower(config.text, vocabulary)
        model.image_projection = nn.Parameter(torch.empty(config.image.width, config.dim))
        model.lang_projection = nn.Parameter(torch.empty(config.text.width, config.dim))
        model.logit_scale = nn.Parameter(torch.empty(()))
    return model.eval().requires_grad_(False)
