"""Pure: from ranked keys to one hit per patient or study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.planner import Plan
from retrieval.types import Keys

Ordering = npt.NDArray[np.floating[Any]]  # [n], greater is better: similarities, or scores in float64


@dataclass(frozen=True, slots=True)
class Ranked:
    """Best first, no padding; ``plan`` is that of the last, widest search."""

    keys: Keys
    similarities: Ordering
    plan: Plan


def group_hits(keys: Keys, similarities: Ordering, groups: Sequence[str], k: int) -> tuple[Keys, Ordering]:
    """The k best, keeping of each group only its best; ties by key.

    ``groups`` has the group of each key, in order; "" means unknown and never merges with another.
    """
    seen: set[str] = set()
    kept: list[int] = []
    for at in np.lexsort((keys, -similarities)).tolist():
        if groups[at] in seen:
            continue
        if groups[at]:
            seen.add(groups[at])
        kept.append(at)
        if len(kept) == k:
            break
    return keys[kept], similarities[kept]


def search_grouped(
    search: Callable[[int], tuple[Keys, Ordering, Plan]], groups_of: Callable[[Keys], Sequence[str]], k: int
) -> Ranked:
    """The k best of distinct groups, fewer only when fewer exist.

    ``search(n)`` gives the n best of one query (arrays [n] or [1, n], padded with key -1 when there are no more), each
    time of the same snapshot. It is asked for more and more until k groups are found or it has nothing left.
    ``groups_of`` gives the group of each key, in order, and is asked once about each.
    """
    known: dict[int, str] = {}
    wanted = k
    while True:
        found, sims, plan = search(wanted)
        real = np.ravel(found) >= 0
        keys, similarities = np.ravel(found)[real], np.ravel(sims)[real]
        new = np.array([key for key in keys.tolist() if key not in known], dtype=np.int64)
        known.update(zip(new.tolist(), groups_of(new), strict=True))
        best, scores = group_hits(keys, similarities, [known[key] for key in keys.tolist()], k)
        if len(best) == k or len(keys) < wanted:
            return Ranked(best, scores, plan)
        wanted *= 4
