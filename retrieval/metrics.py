"""Measures of a ranking. Pure functions over whole blocks of queries.

``Ranked``: bool ``[queries, ranks]``; ``Ranked[q, r]`` says whether the case at rank ``r + 1`` of query ``q`` is
relevant. What may not be ranked (the query itself, its patient) is left out, its places at the end are False.
``totals``: int ``[queries]``, how many relevant cases the query could have found in the whole gallery.
``sizes``: int ``[queries]``, how many cases it could have found at all.

No ``k`` is ever lowered to the size of the query's class: a class of three has a P@10 of 0.3 at best,
and chance is measured in the same way.
Measures that divide by the number of relevant cases are NaN for a query that has none.
Definitions follow Manning, Raghavan, Schütze, *Introduction to Information Retrieval*, chapter 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ranked = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def precision_at(ranked: Ranked, k: int) -> Scores:
    """P@k [queries]: relevant cases among the first k, over k, also where fewer than k could be ranked."""
    _check_k(k)
    return np.asarray(ranked[:, :k].sum(axis=1) / np.float64(k), dtype=np.float64)


def recall_at(ranked: Ranked, totals: Counts, k: int) -> Scores:
    """R@k [queries]: the share of all relevant cases that is among the first k; low where they are many."""
    _check_k(k)
    return _share(ranked[:, :k].sum(axis=1).astype(np.float64), totals)


def success_at(ranked: Ranked, totals: Counts, k: int) -> Scores:
    """S@k [queries]: 1 when any of the first k is relevant; image retrieval papers call its mean "recall@k" too."""
    _check_k(k)
    return np.where(totals > 0, ranked[:, :k].any(axis=1).astype(np.float64), np.nan)


def average_precision(ranked: Ranked, totals: Counts, k: int | None = None) -> Scores:
    """AP [queries]: precision at the rank of each relevant case, averaged over all ``totals`` relevant cases.

    With ``k``, AP@k: only the first k ranks count, averaged over ``min(k, totals)``, so that a perfect ranking has 1.
    """
    if k is not None:
        _check_k(k)
        ranked, totals = ranked[:, :k], np.minimum(totals, k)
    found = np.cumsum(ranked, axis=1, dtype=np.float64)
    found /= np.arange(1, ranked.shape[1] + 1)
    return _share((found * ranked).sum(axis=1), totals)


def ndcg_at(ranked: Ranked, totals: Counts, k: int) -> Scores:
    """nDCG@k [queries], binary gains, discount ``1 / log2(rank + 1)``, over the ideal ranking of the whole gallery."""
    _check_k(k)
    discounts = _discounts(k)
    gain = (ranked[:, :k] * discounts[: min(k, ranked.shape[1])]).sum(axis=1)  # not @: whose sums depend on the block
    return _share(gain, _ideal(totals, discounts))


def chance_precision(totals: Counts, sizes: Counts, k: int) -> Scores:
    """Expected P@k [queries] of a random ranking."""
    _check_k(k)
    return _share(np.minimum(sizes, k) / np.float64(k) * totals, sizes)


def chance_recall(totals: Counts, sizes: Counts, k: int) -> Scores:
    """Expected R@k [queries] of a random ranking."""
    _check_k(k)
    return np.where(totals > 0, _share(np.minimum(sizes, k).astype(np.float64), sizes), np.nan)


def chance_average_precision(totals: Counts, sizes: Counts) -> Scores:
    """Expected AP [queries] of a random ranking of n cases, R of them relevant: (H_n + (R-1)/(n-1) (n - H_n)) / n.

    A relevant case at rank i contributes 1/i for itself and (R-1)/(n-1) x (i-1)/i for those above it; ranks are
    equally likely. H_n is the n-th harmonic number. (Bestgen, "Exact expected average precision", 2015.)
    """
    largest = int(sizes.max(initial=0))
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, largest + 1))])[sizes]
    others = np.where(sizes > 1, (totals - 1) / np.maximum(sizes - 1, 1), 0.0)
    expected = _share(harmonic + others * (sizes - harmonic), sizes)
    return np.where(totals > 0, expected, np.nan)


def chance_ndcg(totals: Counts, sizes: Counts, k: int) -> Scores:
    """Expected nDCG@k [queries] of a random ranking."""
    _check_k(k)
    discounts = _discounts(k)
    reachable = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(sizes, k)]
    return _share(reachable * _share(totals.astype(np.float64), sizes), _ideal(totals, discounts))


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided percentile interval."""

    low: float
    high: float


def patient_bootstrap(
    scores: Scores, patients: npt.NDArray[np.int64], seed: int, resamples: int = 1000, level: float = 0.95
) -> Interval:
    """Percentile bootstrap of the mean of ``scores`` [queries], resampling whole patients (0-based, [queries]).

    Queries of one patient are not independent, so patients are drawn with replacement and bring all their queries
    (Efron, Tibshirani 1993, chapter 13; the cluster bootstrap). NaN scores are left out. Without a score, NaN.
    """
    kept = np.isfinite(scores)
    if not kept.any():
        return Interval(float("nan"), float("nan"))
    _, cluster = np.unique(patients[kept], return_inverse=True)
    sums, counts = np.bincount(cluster, weights=scores[kept]), np.bincount(cluster).astype(np.float64)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):  # one draw at a time: memory stays at the number of patients
        times = np.bincount(generator.integers(0, len(sums), len(sums)), minlength=len(sums))
        means[i] = (times @ sums) / (times @ counts)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")


def _discounts(k: int) -> Scores:
    return np.asarray(1.0 / np.log2(np.arange(2, k + 2)), dtype=np.float64)


def _ideal(totals: Counts, discounts: Scores) -> Scores:
    """DCG of the best ranking there could be, [queries]."""
    cumulated = np.concatenate([[0.0], np.cumsum(discounts)])
    return np.asarray(cumulated[np.minimum(totals, len(discounts))], dtype=np.float64)


def _share(part: Scores, whole: Counts | Scores) -> Scores:
    """``part / whole`` where whole is positive, NaN elsewhere."""
    out = np.full(part.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
