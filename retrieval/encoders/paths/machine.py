"""The facts of a machine that decide which path is fastest there. A choice made under other facts does not hold."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_LIBRARIES = ("torch", "onnxruntime", "openvino", "onnx", "onnxscript", "numpy")
_CPUINFO = Path("/proc/cpuinfo")
_NAMING = ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part")
_FEATURES = ("amx", "avx", "asimd", "bf16", "fma", "i8mm", "sse4", "sve")  # beginnings of what kernels are picked by


@dataclass(frozen=True, slots=True)
class Machine:
    """``cpu``: its name and model. ``features``: its instruction sets, sorted. ``threads``: those torch computes with.

    ``device``: "cpu", or the GPU's name and memory in GiB. ``versions``: library and version, absent ones left out.
    """

    cpu: str
    features: tuple[str, ...]
    threads: int
    device: str
    versions: tuple[str, ...]

    @classmethod
    def here(cls, device: torch.device) -> Machine:
        """This machine, as this process uses it with ``device``."""
        import torch

        cpu, features = _cpu()
        return cls(cpu, features, torch.get_num_threads(), _device(device), _versions())

    @property
    def digest(self) -> str:
        """12 hex digits over all facts."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def _cpu() -> tuple[str, tuple[str, ...]]:
    """Name and instruction sets; where the system does not list them, what Python knows of the processor."""
    try:
        first = _CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine(), ()
    pairs = (line.partition(":") for line in first.splitlines())
    facts = {name.strip(): value.strip() for name, _, value in pairs}
    name = " / ".join(facts[key] for key in _NAMING if key in facts)
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return name or platform.machine(), tuple(sorted(flag for flag in flags if flag.startswith(_FEATURES)))


def _device(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device.type)
    import torch

    facts = torch.cuda.get_device_properties(device)
    return f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"


def _versions() -> tuple[str, ...]:
    found = []
    for library in _LIBRARIES:
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            continue
    return tuple(found)
