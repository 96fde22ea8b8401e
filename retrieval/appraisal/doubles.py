"""Near-duplicates of other patients, and those among them whose labels contradict each other.

They leak from one patient into another's neighbours and flatter every figure; two pictures that are the same but carry
different labels show that one of the labels is wrong. Similar vectors alone do not make a duplicate, so what is nearly
equal by its vector is also compared by its picture, where pictures are on file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.appraisal.subjects import Subjects

ALIKE = 0.98  # cosine from which two cases are looked at
SURELY = 0.9999  # cosine from which they count as duplicates when there are no pictures to compare
GREY_LEVELS = 4.0  # root mean square difference of two pictures that are taken for the same, of 255
MOST = 500  # pairs that are looked at, the most similar first

Picture = npt.NDArray[np.float32]  # grey, [32, 32], 0 to 255


@dataclass(frozen=True, slots=True)
class Double:
    """Two cases (rows of the subjects) of different or unknown patients that are nearly one picture."""

    first: int
    second: int
    similarity: float
    same_pixels: bool
    conflicting: bool  # they share no value of the label
    grey_levels: float | None  # root mean square difference of the pictures; None when it was not measured


def doubles(
    subjects: Subjects,
    rows: npt.NDArray[np.int64],
    near: npt.NDArray[np.int64],
    similarities: npt.NDArray[np.float64],
    picture: Callable[[int], Picture | None],
) -> tuple[Double, ...]:
    """The pairs, the most similar first. ``near`` and ``similarities`` [q, m] are of the queries ``rows`` [q].

    ``picture`` gives the small grey picture of a case, None where there is none. At most ``MOST`` pairs are looked at.
    """
    pairs: dict[tuple[int, int], float] = {}
    for query, place in zip(*np.nonzero((similarities >= ALIKE) & (near >= 0)), strict=True):
        one, other = int(rows[query]), int(near[query, place])
        pairs[min(one, other), max(one, other)] = float(similarities[query, place])
    closest = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST]
    found = (_double(subjects, one, other, similarity, picture) for (one, other), similarity in closest)
    return tuple(double for double in found if double is not None)


def _double(
    subjects: Subjects, one: int, other: int, similarity: float, picture: Callable[[int], Picture | None]
) -> Double | None:
    same = bool(subjects.pixels) and bool(subjects.pixels[one]) and subjects.pixels[one] == subjects.pixels[other]
    pictures = picture(one), picture(other)
    levels = None
    if pictures[0] is not None and pictures[1] is not None:
        levels = float(np.sqrt(np.mean((pictures[0] - pictures[1]) ** 2)))
    alike = similarity >= SURELY if levels is None else levels <= GREY_LEVELS
    if not (same or alike):
        return None
    conflicting = not set(subjects.values[one]) & set(subjects.values[other])
    return Double(one, other, similarity, same, conflicting, levels)
