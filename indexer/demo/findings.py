"""What a phantom shows: the finding, its side and size; and what a drawing hands back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Finding:
    """``side``: L, R or "" (the patient's). ``size_mm``: the largest diameter, for what has one."""

    name: str = "normal"
    side: str = ""
    size_mm: float | None = None


@dataclass(frozen=True, slots=True)
class Chances:
    """Two streams of chance: ``body`` is the same at every visit of a patient, ``visit`` differs."""

    body: np.random.Generator
    visit: np.random.Generator

    @classmethod
    def of(cls, seed: int, patient: int, study: int, image: int) -> Chances:
        return cls(np.random.default_rng([seed, patient, 0]), np.random.default_rng([seed, patient, 1, study, image]))


@dataclass(frozen=True, slots=True)
class Picture:
    """``pixels``: uint16 [rows, columns] of ``bits`` (white is dense), or uint8 RGB. ``spacing``: (row, column) mm."""

    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    spacing: tuple[float, float]
    bits: int = 12


@dataclass(frozen=True, slots=True)
class Volume:
    """``voxels``: int16 [slices, rows, columns], foot to head, each slice as a radiologist sees it (anterior up, the
    patient's right on the left); HU for CT. ``spacing``: (slice, row, column) mm."""

    voxels: npt.NDArray[np.int16]
    spacing: tuple[float, float, float]
