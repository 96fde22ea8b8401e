"""Views of a frame that show the same: cropped, turned, mirrored, windowed, blurred, noisy. Seeded, in 8 bits."""

from __future__ import annotations

import cv2
import numpy as np

from retrieval.encoders.recipe import Bytes

_LEAST_AREA = 0.7  # of a crop
_TURN = 12.0  # degrees, either way
_SHEAR = 0.06
_GAMMA = 0.35  # of the logarithm
_LIGHT = 0.12  # of the range
_CONTRAST = 0.25
_BLUR = 1.2  # pixels
_NOISE = 6.0  # of 255


def view(frame: Bytes, random: np.random.Generator) -> Bytes:
    """Another view of a frame [rows, columns, 3] of the same size."""
    return _shown(_moved(frame, random), random)


def _moved(frame: Bytes, random: np.random.Generator) -> Bytes:
    rows, columns = frame.shape[:2]
    zoom = 1 / np.sqrt(random.uniform(_LEAST_AREA, 1.1))
    stretch = np.exp(random.uniform(-0.1, 0.1))
    angle, shear = np.deg2rad(random.uniform(-_TURN, _TURN)), random.uniform(-_SHEAR, _SHEAR)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.array([[zoom * stretch, shear], [0, zoom / stretch]])
    if random.random() < 0.5:
        linear[:, 0] *= -1
    centre = np.array([columns, rows]) / 2
    slack = max(zoom - 1, 0.04) / 2
    offset = centre - linear @ centre + random.uniform(-slack, slack, 2) * (columns, rows)
    matrix = np.column_stack([linear, offset])
    return np.asarray(cv2.warpAffine(frame, matrix, (columns, rows), flags=cv2.INTER_LINEAR))


def _shown(frame: Bytes, random: np.random.Generator) -> Bytes:
    levels = np.linspace(0, 1, 256) ** np.exp(random.uniform(-_GAMMA, _GAMMA))
    levels = (levels - 0.5) * np.exp(random.uniform(-_CONTRAST, _CONTRAST)) + 0.5 + random.uniform(-_LIGHT, _LIGHT)
    shown: Bytes = cv2.LUT(frame, np.clip(levels * 255, 0, 255).astype(np.uint8))
    if random.random() < 0.3:
        shown = cv2.GaussianBlur(shown, (0, 0), random.uniform(0.3, _BLUR))
    if random.random() < 0.3:
        grain = random.standard_normal(shown.shape[:2], np.float32)[:, :, None] * random.uniform(1, _NOISE)
        shown = np.clip(shown + grain, 0, 255).astype(np.uint8)
    return shown
