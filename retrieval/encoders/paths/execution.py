"""Runs a network in the batch sizes its path allows, one batch at a time, and gets by with less memory than hoped."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from retrieval.encoders.paths.base import EAGER, Forward
from retrieval.errors import RejectedInput

if TYPE_CHECKING:
    import torch

BATCH = 16  # frames a time: past this a CPU gains nothing, and memory stays small
ANY_SIZE = tuple(range(1, BATCH + 1))

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "bad_alloc", "failed to allocate")  # as libraries say it

_log = logging.getLogger(__name__)


class Execution:
    """How one network is run. Eager until ``use`` says otherwise.

    A batch is cut into the largest of ``sizes`` that fit; what is less than the smallest is filled up with copies of
    its last input, whose rows are thrown away. A path that computes a batch of 5 a little differently from one of 16 is
    so held to sizes that agree.
    """

    def __init__(self, forward: Forward, device: torch.device, sizes: Sequence[int] = ANY_SIZE) -> None:
        self.eager = forward
        self.device = device
        self.lock = Lock()  # the switches of ``inference`` are the process's; threads would undo each other's
        self._path, self._forward = EAGER, forward
        self._sizes = self._allowed = tuple(sorted(sizes))

    @property
    def path(self) -> str:
        """The path in use."""
        return self._path

    @property
    def largest(self) -> int:
        """How many inputs are run together at most."""
        return self._sizes[-1]

    def use(self, path: str, forward: Forward, sizes: Sequence[int]) -> None:
        """Run ``forward`` from now on, in batches of ``sizes``."""
        with self.lock:
            self._path, self._forward = path, forward
            self._sizes = self._allowed = tuple(sorted(sizes))

    def rows(self, inputs: torch.Tensor) -> npt.NDArray[np.float32]:
        """Rows [n, dim] of inputs [n, ...], which are on the CPU.

        Where memory runs out, batches are halved from then on. RejectedInput when one input alone is too many.
        """
        with self.lock, inference():
            rows: list[npt.NDArray[np.float32]] = []
            start = 0
            while start < len(inputs):
                size = self._size(len(inputs) - start)
                part = inputs[start : start + size]
                done = self._attempt(filled(part, size))
                if done is None:
                    self._halve(size)
                    continue
                rows.append(done[: len(part)])
                start += len(part)
        return np.concatenate(rows)

    def _attempt(self, batch: torch.Tensor) -> npt.NDArray[np.float32] | None:
        """The rows of one batch, or None when there is no memory for it."""
        try:
            return to_host(self._forward(to_device(batch, self.device)))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return None  # out of the except clause, whose traceback holds the tensors that were too many

    def _size(self, left: int) -> int:
        return max((size for size in self._allowed if size <= left), default=self._allowed[0])

    def _halve(self, size: int) -> None:
        """No more batches of ``size``. A path held to one size has then to run another, which the log tells."""
        if self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()
        if size == 1:
            raise RejectedInput(
                "embed",
                "The encoder ran out of memory with a single frame: close what else uses this memory, or take a "
                "smaller encoder.",
            )
        self._allowed = tuple(known for known in self._sizes if known <= size // 2) or (size // 2,)
        _log.warning("Out of memory with %d frames at a time on %s: going on with %d.", size, self.device, size // 2)
        if self._allowed[0] not in self._sizes:
            _log.warning("The path %s was not checked with %d frames at a time.", self._path, self._allowed[0])


def filled(part: torch.Tensor, size: int) -> torch.Tensor:
    """``part`` with its last input repeated up to ``size`` inputs."""
    import torch

    missing = size - len(part)
    return torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing > 0 else part


def to_device(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch.to(device)


def to_host(rows: torch.Tensor) -> npt.NDArray[np.float32]:
    host: npt.NDArray[np.float32] = rows.float().cpu().numpy()
    return host


def out_of_memory(error: BaseException) -> bool:
    """Whether a library says with this error, in its own way, that memory ran out."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(words in text for words in _OUT_OF_MEMORY)


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
