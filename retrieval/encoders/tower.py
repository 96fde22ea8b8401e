"""An image tower in torch, as timm and open_clip encoders have it: batches, device, inference mode, unit rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from threading import Lock
from typing import TYPE_CHECKING, Self

import numpy as np

from retrieval.encoders.base import EncoderCard, unit_rows
from retrieval.encoders.recipe import Input, apply
from retrieval.errors import UsageError
from retrieval.types import Image, UnitRows

if TYPE_CHECKING:
    import torch

BATCH = 16  # frames a time: past this a CPU gains nothing, and memory stays small


class ImageTower:
    """Runs ``forward`` ([n, 3, rows, columns] -> [n, dim]) of a model in eval mode. Same image, same vector.

    float32 throughout, TF32 off: a batch of one and a batch of many agree to about 1e-6.
    """

    def __init__(
        self, card: EncoderCard, forward: Callable[[torch.Tensor], torch.Tensor], device: torch.device
    ) -> None:
        self._card = card
        self._forward = forward
        self._device = device
        self._one_at_a_time = Lock()  # the switches of ``inference`` are the process's; threads would undo each other's

    @property
    def card(self) -> EncoderCard:
        return self._card

    def with_card(self, card: EncoderCard) -> Self:
        """The same network, its weights shared, under a card with another recipe."""
        other = copy(self)
        other._card = card
        return other

    def encode(self, images: Sequence[Image]) -> UnitRows:
        rows = [self._rows(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
        return np.concatenate(rows) if rows else np.empty((0, self._card.dim), np.float32)

    def run(self, inputs: Sequence[Input]) -> UnitRows:
        """Unit rows of inputs that are already as the recipe makes them, one batch."""
        import torch

        batch = np.ascontiguousarray(np.stack(inputs).transpose(0, 3, 1, 2))
        with self._one_at_a_time, inference():
            return unit_rows(self._forward(torch.from_numpy(batch).to(self._device)).float().cpu().numpy())

    def _rows(self, images: Sequence[Image]) -> UnitRows:
        return self.run([apply(self._card.recipe, image) for image in images])


@contextmanager
def inference() -> Iterator[None]:
    """No gradients, no shortcuts in precision, no algorithm picked by a race; the caller's settings come back after."""
    import torch

    cudnn = torch.backends.cudnn
    with (
        torch.inference_mode(),
        cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        yield


def choose_device(device: str | None) -> torch.device:
    """The device a user named, or CUDA where there is one. UsageError when it can't be used on this machine."""
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"The device '{device}' can't be used here: try 'cpu', or 'cuda' where there is a GPU."
        ) from error
    return chosen
