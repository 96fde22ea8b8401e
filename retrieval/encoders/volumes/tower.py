"""A 3D network as an encoder: whatever runs it (torch, ONNX Runtime), the volume is prepared and cut here.

A family that has loaded a network of kind 3D returns ``VolumeTower(card, forward)``; ``card.volume`` says what the
network takes, ``forward`` runs a batch of patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt

from retrieval.encoders.base import EncoderCard, VolumeRows, unit_rows
from retrieval.encoders.recipe import Recipe
from retrieval.encoders.volumes.patches import patches_of, slices_of
from retrieval.encoders.volumes.recipe import VolumeRecipe
from retrieval.encoders.volumes.volume import Volume
from retrieval.errors import RejectedInput, UsageError
from retrieval.types import Image, UnitRows

Rows = npt.NDArray[np.float32]
BATCH_VOXELS = 4 * 24 * 128 * 128  # of all patches that are run together: activations take hundreds of bytes a voxel


class VolumeTower:
    """Runs ``forward``: float32 [n, channels, *patch], C-contiguous -> float [n, dim]. Same volume, same rows."""

    def __init__(self, card: EncoderCard, forward: Callable[[Rows], Rows]) -> None:
        if card.volume is None:
            raise UsageError(f"The card of '{card.name}' says kind 3D and has no volume recipe: add one.")
        self._card = card
        self._recipe: VolumeRecipe = card.volume
        self._forward = forward
        self._one_at_a_time = Lock()  # two volumes at once would take twice the memory and no less time

    @property
    def card(self) -> EncoderCard:
        return self._card

    def encode(self, images: Sequence[Image]) -> UnitRows:
        """No rows for no images; anything else is refused."""
        if images:
            raise RejectedInput("embed", f"The encoder '{self._card.name}' takes volumes, got single frames.")
        return np.empty((0, self._card.dim), np.float32)

    def encode_volume(self, volume: Volume) -> VolumeRows:
        with self._one_at_a_time:
            patches, grid = patches_of(volume, self._recipe)
            together = max(1, BATCH_VOXELS // int(np.prod(self._recipe.patch)))
            rows = []
            for first in range(0, len(patches.starts), together):
                batch = range(first, min(first + together, len(patches.starts)))
                rows.append(self._run(np.stack([patches.cut(n) for n in batch])))
        places = [slices_of(grid, self._recipe, start) for start in patches.starts]
        return VolumeRows(
            np.concatenate(rows), tuple(middle for middle, _ in places), tuple(span for _, span in places)
        )

    def _run(self, batch: Rows) -> UnitRows:
        rows = np.asarray(self._forward(batch))
        if rows.shape != (len(batch), self._card.dim):
            raise UsageError(
                f"The network of '{self._card.name}' gives an array of shape {rows.shape} for {len(batch)} patches, "
                f"its card says {self._card.dim} numbers each: correct the card."
            )
        return unit_rows(rows)


def frame_recipe(volume: VolumeRecipe) -> Recipe:
    """What stands in ``EncoderCard.recipe`` of a 3D encoder, which prepares no frames: its name and in-plane size."""
    return Recipe(name=volume.name, size=volume.patch[1:], channels=1)
