"""Which vectors may be returned: all, a random share, or a share that lies together, as one modality does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.types import Keys, UnitRows

SHARES = (0.1, 0.01, 0.001)
_BLOCK = 16384


@dataclass(frozen=True, slots=True)
class Scope:
    """``allowed``: ascending keys (positions + 1), None for all. ``number``: its place among the scopes of a run."""

    number: int
    name: str
    allowed: Keys | None = None

    def mask(self, count: int) -> np.ndarray:
        """bool [count], true where a row may be returned."""
        chosen = np.full(count, self.allowed is None)
        if self.allowed is not None:
            chosen[self.allowed - 1] = True
        return chosen


def scopes_of(rows: UnitRows, seed: int = 1, shares: Sequence[float] = SHARES) -> tuple[Scope, ...]:
    """All of them, then by share a random choice and the rows that lie farthest along a direction of the data.

    The direction leads from one random row to another. Most queries lie elsewhere, which is the hard case for a walk
    that goes towards the query.
    """
    rng = np.random.default_rng(seed)
    count = len(rows)
    scopes = [Scope(0, "no filter")]
    for share in shares:
        size = max(1, round(share * count))
        scopes.append(Scope(len(scopes), f"{share:.1%} at random", np.sort(rng.choice(count, size, replace=False)) + 1))
    one, other = rng.choice(count, 2, replace=False)
    along = _along(rows, rows[other] - rows[one])
    for share in shares:
        size = max(1, round(share * count))
        farthest = np.argpartition(-along, size - 1)[:size]
        scopes.append(Scope(len(scopes), f"{share:.1%} that lie together", np.sort(farthest) + 1))
    return tuple(scopes)


def _along(rows: UnitRows, direction: np.ndarray) -> np.ndarray:
    return np.concatenate([rows[start : start + _BLOCK] @ direction for start in range(0, len(rows), _BLOCK)])
