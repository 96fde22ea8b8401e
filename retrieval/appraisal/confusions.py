"""What is mistaken for what: cases whose neighbours vote for a value that they don't have."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PAIRS, EXAMPLES, SHOWN = 12, 2, 3  # pairs of values that are told, queries shown of each, neighbours shown of each


@dataclass(frozen=True, slots=True)
class Example:
    """One query and its nearest neighbours, as rows of the subjects. ``share``: of the vote for the wrong value."""

    query: int
    neighbours: tuple[int, ...]
    similarities: tuple[float, ...]
    share: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """``cases`` of the ``of`` queries that have the value ``has`` are voted ``voted``, which they don't have."""

    has: str
    voted: str
    cases: int
    of: int
    examples: tuple[Example, ...]  # the firmest votes first


def confusions(
    classes: tuple[str, ...],
    members: npt.NDArray[np.bool_],
    votes: npt.NDArray[np.float64],
    near: npt.NDArray[np.int64],
    similarities: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
) -> tuple[Confusion, ...]:
    """The most frequent pairs, by how many queries.

    ``members`` and ``votes`` [q, classes]: what each query has and how its neighbours vote; ``near`` and
    ``similarities`` [q, m]; ``rows`` [q]: which case each query is. A query with several values counts for each.
    """
    voted = np.argmax(votes, axis=1)
    wrong = ~members[np.arange(len(voted)), voted] & (votes.max(axis=1, initial=0) > 0)
    queries_of: dict[tuple[int, int], list[int]] = defaultdict(list)
    for query in np.flatnonzero(wrong):
        for value in np.flatnonzero(members[query]):
            queries_of[int(value), int(voted[query])].append(int(query))
    most = sorted(queries_of.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:PAIRS]
    out = []
    for (has, said), queries in most:
        firmest = sorted(queries, key=lambda query: (-votes[query, said], query))[:EXAMPLES]
        examples = tuple(_example(query, said, votes, near, similarities, rows) for query in firmest)
        out.append(Confusion(classes[has], classes[said], len(queries), int(members[:, has].sum()), examples))
    return tuple(out)


def _example(
    query: int,
    said: int,
    votes: npt.NDArray[np.float64],
    near: npt.NDArray[np.int64],
    similarities: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
) -> Example:
    shown = [place for place in range(min(SHOWN, near.shape[1])) if near[query, place] >= 0]
    return Example(
        int(rows[query]),
        tuple(int(near[query, place]) for place in shown),
        tuple(float(similarities[query, place]) for place in shown),
        float(votes[query, said]),
    )
