"""The text tower: a transformer of torch's own layers, read at the first end-of-text token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retrieval.encoders.medimageinsight.config import TextShape

if TYPE_CHECKING:
    import torch

_EPSILON = 1e-12  # of every norm of this tower, not torch's 1e-5: random weights are small enough to show it


def build_text_tower(shape: TextShape, vocabulary: int) -> torch.nn.Module:
    """The tower with weights not yet loaded."""
    import torch
    from torch import nn

    tower = nn.Module()
    tower.token_embedding = nn.Embedding(vocabulary, shape.width)
    tower.positional_embedding = nn.Parameter(torch.empty(shape.context, shape.width))
    tower.resblocks = nn.ModuleList(
        nn.TransformerEncoderLayer(
            shape.width,
            shape.heads,
            4 * shape.width,
            dropout=0.0,
            activation=_quick_gelu,
            layer_norm_eps=_EPSILON,
            batch_first=True,
            norm_first=True,
        )
        for _ in range(shape.layers)
    )
    tower.ln_final = nn.LayerNorm(shape.width, eps=_EPSILON)
    return tower


def text_features(tower: Any, shape: TextShape, ids: torch.Tensor, end: int) -> torch.Tensor:
    """``ids`` [n, context], padded with the ``end`` token -> [n, width], read at the first end token of each text.

    What follows the end is padding and takes no part: it is masked, or out of sight of a causal tower.
    """
    import torch

    places = torch.arange(shape.context, device=ids.device)
    last_word = (places * (ids != end)).amax(dim=1, keepdim=True)
    causal = places[:, None] < places[None, :] if shape.causal else None
    padding = None if shape.causal else places[None, :] > last_word + 1
    tokens = tower.token_embedding(ids) + tower.positional_embedding
    for block in tower.resblocks:
        tokens = block(tokens, src_mask=causal, src_key_padding_mask=padding)
    first_end = (ids == end).int().argmax(dim=1)
    features: torch.Tensor = tower.ln_final(tokens[torch.arange(len(ids), device=ids.device), first_end])
    return features


def _quick_gelu(values: torch.Tensor) -> torch.Tensor:
    """x * sigmoid(1.702 x), the approximation CLIP was trained with."""
    return values * (1.702 * values).sigmoid()
