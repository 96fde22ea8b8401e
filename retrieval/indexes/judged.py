"""Whoever is nominated by codes is judged by the stored float32 row, and the nomination by what it may have missed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.indexes import scan
from retrieval.indexes.products import Nominees, products
from retrieval.indexes.rows import Rows
from retrieval.types import Keys, Similarities, UnitRows

_SPARE = 4  # scored in float64 beyond k: float32 products may put neighbours in the wrong order

Doubt = npt.NDArray[np.bool_]  # [queries]


@dataclass(frozen=True, slots=True)
class Nominated:
    """``likely`` float32 [queries, n]: how similar the nominees probably are; ``noise``: standard deviation of what
    that is off by. ``coarse``: as they were told by the codes that nominated them, where more is known by now."""

    nominees: Nominees
    likely: Similarities
    noise: float
    coarse: Nominated | None = None


@dataclass(frozen=True, slots=True)
class Care:
    """How many rows are read: the ``first`` likeliest in any case, and of the others those who may well be nearer than
    the k-th best of these, when they are ``sure`` times the noise more similar than is likely. ``own``: or as much more
    as the query's own first nominees were on average, and so many times their noise, where that is more (0: not worked
    out). ``coarse``: times the noise of what nominated them, where more is known by now (0: as ``sure``)."""

    first: int
    sure: float
    own: float = 0.0
    coarse: float = 0.0

    @property
    def sure_of_coarse(self) -> float:
        return self.coarse or self.sure


def judged(queries: UnitRows, rows: Rows, nominated: Nominated, care: Care, k: int) -> tuple[Keys, Similarities, Doubt]:
    """The k best of each query's nominees by exact similarity, ties by key, padded; and whether someone who was not
    nominated may well be nearer than the worst of them. k <= ``care.first``."""
    first, likely = nominated.nominees[:, : care.first], nominated.likely
    rough = products(queries, rows.vectors, first)
    margin = _margin(rough, likely[:, : care.first], nominated.noise, care)
    nominees, least, spare = first, _kth(rough, k) - margin, likely[:, care.first :]
    if spare.size and (spare[:, 0] > least).any():  # nominees are in order: whoever is plausible comes first
        more = int((spare > least[:, None]).sum(axis=1).max())
        block = nominated.nominees[:, care.first : care.first + more]
        others = np.where(spare[:, :more] > least[:, None], block, scan.NO_KEY)
        nominees = np.concatenate([first, others], axis=1)
        rough = np.concatenate([rough, products(queries, rows.vectors, others)], axis=1)
    keys, sims = _best(queries, rows, nominees, rough, k)
    worst, known = sims[:, -1], nominated
    if nominated.coarse:
        known, margin = nominated.coarse, care.sure_of_coarse * nominated.coarse.noise
    doubt: Doubt = (known.nominees[:, -1] >= 0) & (known.likely[:, -1] + margin > worst) | np.isneginf(worst)
    return keys, sims, doubt


def _margin(found: Similarities, likely: Similarities, noise: float, care: Care) -> Similarities | float:
    """How much more similar than is likely nominees may well be, when those ``found`` were: of all queries, or
    [queries]."""
    margin = care.sure * noise
    if not care.own:
        return margin
    with np.errstate(invalid="ignore"):  # where a query has fewer nominees, all of whom are read
        off = found - likely
        own: Similarities = np.fmax(off.mean(axis=1) + care.own * off.std(axis=1), np.float32(margin))
    return own


def _kth(found: Similarities, k: int) -> Similarities:
    """[queries]: the k-th largest of each row of [queries, n >= k]."""
    at = found.shape[1] - k
    largest: Similarities = np.partition(found, at, axis=1)[:, at]
    return largest


def _best(queries: UnitRows, rows: Rows, nominees: Nominees, rough: Similarities, k: int) -> tuple[Keys, Similarities]:
    lines = np.arange(len(queries))[:, None]
    kept = min(k + _SPARE, nominees.shape[1])
    chosen = nominees[lines, np.argpartition(rough, -kept, axis=1)[:, -kept:]]
    keys, sims = rows.keys[chosen], np.empty(chosen.shape, np.float32)
    for n, query in enumerate(queries):
        sims[n] = scan.similarities(query, rows.vectors[chosen[n]])
    nobody = chosen < 0
    keys[nobody], sims[nobody] = scan.NO_KEY, scan.NO_SIMILARITY
    best = np.lexsort((keys, -sims), axis=-1)[:, :k]
    return keys[lines, best], sims[lines, best]
