"""The experts: for each kind of picture, a linear map from pooled statistics to the labels of one set.

Ridge regression to the labels, in closed form, on each frame and its augmented views. With a few hundred frames of a
kind there is little for anything larger to learn from; what was tried is in docs/compact.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.axes import Rows

_LEAST = 1e-2  # of the deviation of a group's values, added to that of each value


@dataclass(frozen=True, slots=True)
class Expert:
    """``centre`` [d] and ``matrix`` [d, labels] act on pooled statistics; ``kind`` [gates] is a unit row."""

    centre: Rows
    matrix: Rows
    kind: Rows


def fit_expert(
    rows: Rows, texture: Rows, labels: npt.NDArray[np.int64], groups: Sequence[int], penalty: float
) -> Expert:
    """``rows`` [n, d] of the frames and their views, ``texture`` [n, gates] unit rows, ``labels`` as indices.

    ``groups``: the lengths of the parts of a row that weigh the same, however many values each has. ``penalty`` is in
    units of the mean squared length of a standardised row.
    """
    centre, scale = rows.mean(axis=0), np.concatenate([_scale(part) for part in _parts(rows, groups)])
    standard = ((rows - centre) * scale).astype(np.float64) / np.sqrt(len(groups))
    wanted = np.eye(labels.max() + 1)[labels]
    kernel = standard @ standard.T
    dual = np.linalg.solve(kernel + penalty * np.eye(len(kernel)), wanted - wanted.mean(axis=0))
    kind = texture.mean(axis=0)
    return Expert(centre, (standard.T @ dual) * scale[:, None], kind / np.linalg.norm(kind))


def _scale(part: Rows) -> Rows:
    """What each value of a group is multiplied by, so that the group's rows have a mean squared length of 1."""
    scale = 1 / (part.std(axis=0) + _LEAST * part.std() + np.finfo(np.float32).tiny)
    standard = (part - part.mean(axis=0)) * scale
    length = max(float((standard**2).sum() / len(part)), float(np.finfo(np.float32).tiny))
    return np.asarray(scale / np.sqrt(length))


def _parts(rows: Rows, groups: Sequence[int]) -> list[Rows]:
    return np.split(rows, np.cumsum(groups)[:-1], axis=1)
