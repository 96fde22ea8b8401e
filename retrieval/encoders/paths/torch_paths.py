"""Paths within torch: reduced types by autocast, and the compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.encoders.paths.base import Forward
from retrieval.encoders.paths.machine import Machine

if TYPE_CHECKING:
    import torch


def bfloat16(forward: Forward, example: torch.Tensor) -> Forward:
    """Products in bfloat16, sums and norms in float32, as autocast has it."""
    import torch

    return _autocast(forward, example.device.type, torch.bfloat16)


def float16(forward: Forward, example: torch.Tensor) -> Forward:
    """The same in float16: three more bits of precision, less range. A network that overflows is found out."""
    import torch

    return _autocast(forward, example.device.type, torch.float16)


def compiled_float32(forward: Forward, example: torch.Tensor) -> Forward:
    """torch's compiler, one graph for each batch size."""
    import torch

    compiled: Forward = torch.compile(forward, dynamic=False)
    return compiled


def compiled_reduced(forward: Forward, example: torch.Tensor) -> Forward:
    """torch's compiler over autocast: bfloat16 on a CPU, float16 on a GPU."""
    import torch

    dtype = torch.float16 if example.device.type == "cuda" else torch.bfloat16
    compiled: Forward = torch.compile(_autocast(forward, example.device.type, dtype), dynamic=False)
    return compiled


def has_bfloat16(device: torch.device, machine: Machine) -> bool:
    """Whether bfloat16 is computed by the machine itself; emulated, it is slower than float32."""
    if device.type == "cuda":
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any("bf16" in feature for feature in machine.features)


def on_gpu(device: torch.device, machine: Machine) -> bool:
    return str(device.type) == "cuda"


def on_gpu_or_bfloat16(device: torch.device, machine: Machine) -> bool:
    return on_gpu(device, machine) or has_bfloat16(device, machine)


def _autocast(forward: Forward, device: str, dtype: torch.dtype) -> Forward:
    """Channels last: convolutions in reduced types run up to twice as fast in that order, and nothing else minds."""
    import torch

    def run(pixels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, dtype):
            return forward(pixels.contiguous(memory_format=torch.channels_last) if pixels.ndim == 4 else pixels)

    return run
