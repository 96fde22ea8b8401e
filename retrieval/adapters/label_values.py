"""Pure: what a label's values are to a head that learns from them: categories as they are, numbers in bins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.errors import UsageError

MOST_GRADES = 12  # distinct numbers that still count as categories: grades, scores, yes and no
MOST_BINS = 20


def learnable(
    label: str, values: Sequence[tuple[str, ...]], numbers: Sequence[float | None], bins: int | None
) -> list[tuple[str, ...]]:
    """For each case the values to learn from; none for a case that has no number where numbers are binned.

    A label of numbers with more than ``MOST_GRADES`` distinct ones is learned only in ``bins`` equal parts (quantiles),
    since no two patients may share a value. UsageError when bins are needed and not given, or given and make no sense.
    """
    known = np.array([number for number in numbers if number is not None], dtype=np.float64)
    if bins is None:
        if len(known) == len(values) and len(np.unique(known)) > MOST_GRADES:
            raise UsageError(
                f"The label '{label}' is a number with {len(np.unique(known))} distinct values from {known.min():g} to "
                f"{known.max():g}: say into how many equal parts it is to be cut, as --bins 4."
            )
        return list(values)
    if not 2 <= bins <= MOST_BINS:
        raise UsageError(f"Expected from 2 to {MOST_BINS} bins, got {bins}.")
    if not len(known):
        raise UsageError(f"The label '{label}' holds no numbers, so it can't be cut into bins: leave out --bins.")
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)))
    if len(edges) < 3:
        raise UsageError(f"The numbers of '{label}' are too much alike to be cut into {bins} bins.")
    return [() if number is None else (_bin(number, edges),) for number in numbers]


def _bin(number: float, edges: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    """Named by its edges; every bin holds its upper edge, the first its lower one too."""
    at = max(int(np.searchsorted(edges, number, side="left")), 1)
    return f"{edges[at - 1]:g} to {edges[at]:g}"
