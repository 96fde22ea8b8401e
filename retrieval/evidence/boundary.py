"""Pure: on which side of a boundary between the cases on file and strangers a vector lies.

The boundary is a plane, by ridge regression on +1 (case) and -1 (stranger), both sides weighing the same however many
there are (Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, 2009, 3.4.1 and 4.2). Showing a detector
of novelty some strangers, of other kinds than those it will meet, is outlier exposure (Hendrycks et al., ICLR 2019).

A case that the plane was fitted to lies further on its side than a new one will. So what is usual among cases is told
by planes fitted without their patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.evidence.conformal import Values
from retrieval.types import UnitRows

RIDGE = 3e-4  # of the vectors' whole variance
MOST = 500  # cases that a plane is fitted to
PARTS = 4  # patients are parted into so many, each judged by a plane fitted to the others
SEED = 0


@dataclass(frozen=True, slots=True)
class Boundary:
    """``weights``: float32 [dim]. ``middle``: what ``weights`` make of the middle between both sides."""

    weights: npt.NDArray[np.float32]
    middle: float

    def side(self, rows: UnitRows) -> Values:
        """float64 [n] of rows [n, dim]: about 1 for cases on file, about -1 for strangers."""
        return (rows @ self.weights).astype(np.float64) - self.middle


def boundary(cases: UnitRows, strangers: UnitRows) -> Boundary:
    """Between rows [n, dim] and [m, dim], n and m >= 1. Solved among the n + m rows, of which there are fewer than
    dimensions as a rule."""
    rows = np.concatenate([cases, strangers]).astype(np.float64)
    told = np.repeat([1.0, -1.0], [len(cases), len(strangers)])
    weighed = np.sqrt(np.repeat([0.5 / len(cases), 0.5 / len(strangers)], [len(cases), len(strangers)]))
    centre = weighed**2 @ rows  # of ``told`` it is 0
    spread = (rows - centre) * weighed[:, None]
    products = spread @ spread.T
    penalty = max(RIDGE * float(np.trace(products)), np.finfo(np.float64).tiny)
    solved = np.linalg.solve(products + penalty * np.eye(len(products)), told * weighed)
    weights = solved @ spread
    return Boundary(weights.astype(np.float32), float(weights @ centre))


def sides_held_out(cases: UnitRows, patients: Sequence[str], strangers: UnitRows) -> tuple[Boundary, Values]:
    """The boundary, and of each case [n] its side of one that no case of its patient was fitted to.

    ``patients``: of each case one name. At least ``PARTS`` patients.
    """
    rng = np.random.default_rng(SEED)
    names, of_case = np.unique(np.asarray(patients), return_inverse=True)
    part = (rng.permutation(len(names)) % PARTS)[of_case]
    fitted = np.zeros(len(cases), dtype=bool)
    fitted[rng.permutation(len(cases))[:MOST]] = True
    sides = np.empty(len(cases))
    for each in range(PARTS):
        sides[part == each] = boundary(cases[fitted & (part != each)], strangers).side(cases[part == each])
    return boundary(cases[fitted], strangers), sides
