"""An image tower with a text tower in the same space, as open_clip and transformers have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from retrieval.encoders.base import EncoderCard, unit_rows
from retrieval.encoders.tower import BATCH, ImageTower, inference
from retrieval.types import UnitRows

if TYPE_CHECKING:
    import torch

Tokenizer = Callable[[list[str]], "torch.Tensor"]  # [n, context] of int64, padded and cut to the model's context


class ImageTextTowers(ImageTower):
    """``text_forward``: token ids [n, context] -> [n, dim], in the space of the images."""

    def __init__(
        self,
        card: EncoderCard,
        forward: Callable[[torch.Tensor], torch.Tensor],
        text_forward: Callable[[torch.Tensor], torch.Tensor],
        tokenizer: Tokenizer,
        device: torch.device,
    ) -> None:
        super().__init__(card, forward, device)
        self._text = text_forward
        self._tokenizer = tokenizer

    def encode_text(self, texts: Sequence[str]) -> UnitRows:
        """Unit rows [len(texts), card.dim]; a text longer than the context is cut by the model's tokenizer."""
        rows = [np.empty((0, self._card.dim), np.float32)]
        for start in range(0, len(texts), BATCH):
            # the tokenizer too: those of transformers keep padding and truncation as a state that a call sets
            with self._one_at_a_time, inference():
                tokens = self._tokenizer(list(texts[start : start + BATCH])).to(self._device)
                rows.append(unit_rows(self._text(tokens).float().cpu().numpy()))
        return np.concatenate(rows)
