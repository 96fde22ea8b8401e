"""3D networks in files with a card (``torch:PATH``, ``onnx:PATH``): the card has ``volume`` in place of ``recipe``.

``volume`` holds the fields of a ``VolumeRecipe``, or the name of a published one: "ct-fm-v1", "merlin-v1".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.encoders.base import EncoderCard, KnownEncoder
from retrieval.encoders.paths.execution import Execution
from retrieval.encoders.volumes.recipe import CT_FM, MERLIN, VolumeRecipe
from retrieval.encoders.volumes.tower import Rows, VolumeTower

if TYPE_CHECKING:
    import torch


def torch_volumes(
    card: EncoderCard, forward: Callable[[torch.Tensor], torch.Tensor], device: torch.device
) -> VolumeTower:
    """``forward``: [n, channels, *patch] -> [n, dim], on ``device``."""
    import torch

    execution = Execution(forward, device)  # without gradients; where memory runs out, with fewer patches at a time
    return VolumeTower(card, lambda batch: execution.rows(torch.from_numpy(batch)))


def onnx_volumes(card: EncoderCard, run: Callable[[Rows], Any], batch: int | None) -> VolumeTower:
    """``run``: [n, channels, *patch] -> [n, dim]; ``batch``: n where the model has it fixed."""

    def rows(patches: Rows) -> Rows:
        found = []
        for first in range(0, len(patches), batch or len(patches)):
            part = patches[first : first + (batch or len(patches))]
            short = (batch or len(part)) - len(part)
            filled = np.concatenate([part, np.repeat(part[-1:], short, axis=0)]) if short else part
            found.append(np.asarray(run(filled), np.float32)[: len(part)])
        return np.concatenate(found)

    return VolumeTower(card, rows)


def known_volumes() -> Sequence[KnownEncoder]:
    """Published 3D networks that a card names the recipe of; their weights are exported and brought by the user."""
    missing = 'the network: export yours (also to onnx:PATH) and write "volume": "{}" on its card'
    return tuple(
        KnownEncoder(
            "torch:PATH",
            dim,
            None,
            "MIT",
            missing.format(recipe.name),
            notes=f"{title}: {told(recipe)}",
            kind="3D",
            size=recipe.patch,
            recipe_name=recipe.name,
        )
        for title, dim, recipe in (("CT-FM", 512, CT_FM), ("Merlin", 2048, MERLIN))
    )


def told(recipe: VolumeRecipe) -> str:
    """A recipe of volumes in one line."""
    steps = " x ".join(f"{step:g}" for step in recipe.spacing)
    low_high = ", ".join(f"{low:g} to {high:g}" for low, high in recipe.ranges)
    ranges = "percentiles {:g} to {:g}".format(*recipe.percentiles) if recipe.percentiles else f"{low_high} HU"
    size = " x ".join(map(str, recipe.patch))
    cut = f"patches of {size}, overlap {recipe.overlap:g}" if recipe.layout == "patches" else f"the centre {size}"
    return f"{recipe.orientation}, {steps} mm, {ranges} to 0..1, {cut}, pooled by {recipe.pooling}"
