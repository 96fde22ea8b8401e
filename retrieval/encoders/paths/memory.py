"""How many inputs a device's memory allows at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from retrieval.encoders.paths.execution import BATCH

if TYPE_CHECKING:
    import torch

MOST = 128  # inputs a time: past this a GPU gains nothing either
_SHARE = 0.5  # of what is free, so that the allocator's rounding and another process find room


def most_at_once(run: Callable[[torch.Tensor], object], inputs: torch.Tensor, device: torch.device) -> int:
    """A power of two: on a GPU by the memory that ``run`` is seen to need for each of ``inputs``, else ``BATCH``."""
    if device.type != "cuda":
        return BATCH
    import torch

    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run(inputs)
    each = max(1, (torch.cuda.max_memory_allocated(device) - before) // len(inputs))
    free, _ = torch.cuda.mem_get_info(device)
    return at_most(int(_SHARE * free / each))


def at_most(count: int) -> int:
    """The largest power of two up to ``count`` and ``MOST``; at least 1."""
    return 1 << max(0, min(count, MOST).bit_length() - 1)
