"""Preprocessing as data. A recipe is named, versioned, part of the fingerprint, and applied by one pure function."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a frame becomes what a network sees.

    ``ct_window``: (centre, width) in HU, used for modality CT. Other grey frames: the file's own window when
    ``use_file_window`` and the file states one, else the ``percentiles`` of the frame. ``resize``: "squash" (no
    crop), "pad" (letterbox) or "crop" (short side, centre crop). ``size`` is (rows, columns).
    """

    name: str
    size: tuple[int, int]
    resize: str = "squash"
    interpolation: str = "bicubic"
    ct_window: tuple[float, float] = (40.0, 400.0)
    percentiles: tuple[float, float] = (0.5, 99.5)
    use_file_window: bool = True
    channels: int = 3
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
