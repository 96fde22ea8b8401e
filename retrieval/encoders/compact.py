"""The default encoder: a small trained network beside the classical descriptor, its weights in the package.

The row is made of nine blocks: seven general ones of a MobileNetV2 (``compact_network``), the scores of experts trained
on radiographs (``docs/compact.md``), and the ``classical`` descriptor. The experts are silent on other modalities, so
those are told by blocks that no training has narrowed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval.encoders import classical
from retrieval.encoders.base import EncoderCard, KnownEncoder, unit_rows
from retrieval.encoders.classical_blocks import COLOUR_LENGTH
from retrieval.encoders.recipe import Recipe
from retrieval.encoders.tower import ImageTower, choose_device
from retrieval.errors import NotFoundError, UsageError
from retrieval.types import Image, UnitRows

if TYPE_CHECKING:
    from retrieval.encoders.compact_network import CompactNetwork

SIDE = 256
WEIGHTS = Path(__file__).with_name("compact.safetensors")
SHA256 = "08be86a1a9b4655d237da8847ac97673eb60f418aa6e3c8faf7ada26465c5cf5"
LABELS = (3, 2, 5)  # of each expert: pneumonia of children, pneumonia of adults, grade of arthrosis of the knee
CLASSICAL_WEIGHT = 2.0 / 7  # squared length of the classical block, next to that of the seven general ones together
COLOUR_WEIGHT = 6.0  # what the classical descriptor says of colour counts as much more; on grey frames it says nothing
CARD = EncoderCard(
    name="compact",
    spec="compact",
    dim=2 * 64 + 3 * 256 + 384 + 256 + sum(LABELS) + classical.CARD.dim,
    recipe=Recipe(name="compact", size=(SIDE, SIDE), mean=(0.5,), std=(0.5,)),
    weights_sha256=SHA256,
    licence="Apache-2.0",
    notes="in the package, no download; trained on public sets (docs/compact.md)",
)


class CompactEncoder(ImageTower):
    """The network's row and the classical row of a frame, side by side."""

    def encode(self, images: Sequence[Image]) -> UnitRows:
        if not images:
            return np.empty((0, self.card.dim), np.float32)
        small = replace(self.card.recipe, size=classical.CARD.recipe.size)
        shape = unit_rows(np.stack([classical.describe(image, small) for image in images]))
        shape[:, -COLOUR_LENGTH:] *= np.sqrt(COLOUR_WEIGHT)
        seen = super().encode(images)
        general = np.linalg.norm(seen[:, : -sum(LABELS)], axis=1, keepdims=True)
        return unit_rows(np.concatenate([seen, shape * general * np.sqrt(CLASSICAL_WEIGHT)], axis=1))


def open_encoder(rest: str, device: str | None) -> CompactEncoder:
    """``rest`` must be empty: there is one compact encoder."""
    if rest:
        raise UsageError(f"Expected 'compact' alone, got 'compact:{rest}'.")
    chosen = choose_device(device)
    return CompactEncoder(CARD, read_network(WEIGHTS, SHA256).to(chosen), chosen)


def known() -> Sequence[KnownEncoder]:
    return (KnownEncoder(CARD.spec, CARD.dim, CARD.recipe, CARD.licence, notes=CARD.notes),)


def read_network(weights: Path, sha256: str) -> CompactNetwork:
    """The network with the weights of a file whose SHA-256 must be ``sha256``.

    Raises NotFoundError when there is no such file, UsageError when it is damaged or another one.
    """
    import torch
    from safetensors.torch import load

    from retrieval.encoders.compact_network import CompactNetwork

    try:
        packed = weights.read_bytes()
    except OSError as error:
        raise NotFoundError(
            f"The weights of the compact encoder are missing from the installation ({weights.name}): install it again."
        ) from error
    found = hashlib.sha256(packed).hexdigest()
    if found != sha256:
        raise UsageError(
            f"The weights file {weights.name} is damaged or not of this version: expected SHA-256 {sha256[:12]}..., "
            f"got {found[:12]}...; install it again, or use the encoder 'classical', which has no weights."
        )
    network = CompactNetwork(LABELS)
    network.load_state_dict(load(packed))
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return network
