"""An image tower in torch, as timm and open_clip encoders have it: batches, device, inference mode, unit rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from retrieval.encoders.base import EncoderCard, unit_rows
from retrieval.encoders.carded import Carded
from retrieval.encoders.paths.execution import BATCH, Execution, inference
from retrieval.encoders.paths.first import First
from retrieval.encoders.recipe import Input, apply
from retrieval.errors import UsageError
from retrieval.types import Image, UnitRows

if TYPE_CHECKING:
    import torch

__all__ = ["BATCH", "ImageTower", "choose_device", "inference"]


class ImageTower(Carded):
    """Runs ``forward`` ([n, 3, rows, columns] -> [n, dim]) of a model in eval mode. Same image, same vector.

    float32 throughout, TF32 off: a batch of one and a batch of many agree to about 1e-6. ``execution`` may be told to
    run the network by a faster path, within the tolerances of ``paths.calibration``.
    """

    def __init__(
        self, card: EncoderCard, forward: Callable[[torch.Tensor], torch.Tensor], device: torch.device
    ) -> None:
        super().__init__(card)
        self._device = device
        self.execution = Execution(forward, device)
        self.first = First()  # what is due before the first frames are encoded, such as choosing a path
        self._one_at_a_time = self.execution.lock

    @property
    def batch_frames(self) -> int:
        """As ``BatchingEncoder`` says."""
        return self.execution.largest

    def encode(self, images: Sequence[Image]) -> UnitRows:
        self.first.meet(images)
        step = self.execution.largest
        rows = [self._rows(images[start : start + step]) for start in range(0, len(images), step)]
        return np.concatenate(rows) if rows else np.empty((0, self._card.dim), np.float32)

    def inputs(self, images: Sequence[Image]) -> torch.Tensor:
        """Images, at least one, as the network takes them: float32 [n, channels, rows, columns] on the CPU."""
        return _stacked([apply(self._card.recipe, image) for image in images])

    def run(self, inputs: Sequence[Input]) -> UnitRows:
        """Unit rows of inputs that are already as the recipe makes them, at least one."""
        return unit_rows(self.execution.rows(_stacked(inputs)))

    def _rows(self, images: Sequence[Image]) -> UnitRows:
        return self.run([apply(self._card.recipe, image) for image in images])


def _stacked(inputs: Sequence[Input]) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.stack(inputs).transpose(0, 3, 1, 2)))


def choose_device(device: str | None) -> torch.device:
    """The device a user named, or CUDA where there is one. UsageError when it can't be used on this machine."""
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"The device '{device}' can't be used here: try 'cpu', or 'cuda' where there is a GPU."
        ) from error
    return chosen
