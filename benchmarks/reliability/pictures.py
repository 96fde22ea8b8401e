"""Small pictures to send, no two alike."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as Picture


def noise(seed: int, side: int = 48) -> bytes:
    """A grey PNG file of ``side`` x ``side`` pixels."""
    packed = io.BytesIO()
    Picture.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)).save(packed, "PNG")
    return packed.getvalue()
