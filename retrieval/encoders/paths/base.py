"""What a path is: one way of running a network, slower or faster, that gives nearly the same vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval.encoders.paths.machine import Machine

if TYPE_CHECKING:
    import torch

Forward = Callable[["torch.Tensor"], "torch.Tensor"]  # [n, channels, rows, columns] -> [n, dim], any float type

EAGER = "eager"  # torch in float32 as written, the path that every other is measured against


def anywhere(device: torch.device, machine: Machine) -> bool:
    """A path for every device and machine."""
    return True


@dataclass(frozen=True, slots=True)
class FastPath:
    """A path that can be tried.

    ``build(forward, example)`` gives another forward that means the same. ``forward`` is a network in eval mode on its
    device, ``example`` inputs [n, ...] on that device, n >= 1. What it gives takes and returns tensors on that device
    and any n. It may raise anything: the path is then not taken, and the reason is told. ``fits``: whether to try it on
    this device and machine. ``single``: it computes in float32, so that it can't beat a reduced type where the machine
    has one. ``thorough``: building takes minutes, so it is tried only when asked for.
    """

    name: str
    build: Callable[[Forward, torch.Tensor], Forward]
    fits: Callable[[torch.device, Machine], bool] = anywhere
    single: bool = False
    thorough: bool = False
