"""Pure: from ranked keys to one hit per patient or study."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from retrieval.planner import Plan
from retrieval.types import Keys, Similarities


@dataclass(frozen=True, slots=True)
class Ranked:
    """Best first, no padding; ``plan`` is that of the last, widest search."""

    keys: Keys
    similarities: Similarities
    plan: Plan


def group_hits(keys: Keys, similarities: Similarities, groups: Mapping[int, str], k: int) -> tuple[Keys, Similarities]:
    """The k best, keeping of each group only its best; ties by key.

    ``groups``: key -> group. "" means unknown and never merges with another. A key without an entry no longer exists
    and is left out. Padding (key -1) is dropped.
    """
    seen: set[str] = set()
    kept: list[int] = []
    for at in np.lexsort((keys, -similarities)).tolist():
        group = groups.get(int(keys[at]))
        if group is None or group in seen:
            continue
        if group:
            seen.add(group)
        kept.append(at)
        if len(kept) == k:
            break
    return keys[kept], similarities[kept]


def search_grouped(
    search: Callable[[int], tuple[Keys, Similarities, Plan]],
    groups_of: Callable[[Keys], Mapping[int, str]],
    k: int,
) -> Ranked:
    """The k best of distinct groups, fewer only when fewer exist.

    ``search(n)`` gives the n best of one query (arrays [n] or [1, n], padded with key -1 when there are no more). It
    is asked for more and more until k groups are found or it has nothing left.
    """
    groups: dict[int, str] = {}
    wanted = k
    while True:
        found, sims, plan = search(wanted)
        keys, similarities = np.ravel(found), np.ravel(sims)
        real = keys >= 0
        keys, similarities = keys[real], similarities[real]
        new = np.array([key for key in keys.tolist() if key not in groups], dtype=np.int64)
        groups.update(groups_of(new))
        best, scores = group_hits(keys, similarities, groups, k)
        if len(best) == k or len(keys) < wanted:
            return Ranked(best, scores, plan)
        wanted *= 4
