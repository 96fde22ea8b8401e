"""Pure: two rankings of the same queries, compared; what was found, and what may go live by it.

``Answers``: int64 keys [queries, k], best first, padded with -1. ``Neighbours``: the same with float32 similarities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.metrics import patient_bootstrap
from retrieval.types import Keys, Label, Similarities

Answers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
TOLERANCE = 1e-5  # of a similarity: sums of float32 in another order differ by as much


class Neighbours(NamedTuple):
    """Padded with -1 and -inf."""

    keys: Answers
    similarities: Similarities


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two. ``recall``: share of the exact k neighbours it finds. Milliseconds are of single queries.

    ``generation`` is "" where there is none, or a damaged one: the cases are then searched exactly, and not timed here.
    """

    generation: str
    backend: str
    fingerprint: str
    recall: float | None
    p50_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class LabelChange:
    """P@k of one label: the share of the first k that have a value of the query's.

    ``low`` to ``high``: 95 % interval of new - old, whole patients resampled.
    """

    label: str
    queries: int
    old: float
    new: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """``overlap``: share of the k hits that both have. ``rank_correlation``: Spearman's, over the hits that both have,
    mean of the queries with two or more of these. None where there was nothing to measure it on.
    """

    k: int
    queries: int
    seed: int
    old: Side
    new: Side
    overlap: float | None
    rank_correlation: float | None
    labels: tuple[LabelChange, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Gates:
    """What a new generation must reach to go live. None asks for nothing. ``max_loss``: of any label's P@k."""

    min_overlap: float | None = None
    min_recall: float | None = None
    max_loss: float | None = None

    def __post_init__(self) -> None:
        for name, bound in asdict(self).items():
            if bound is not None and not 0 <= bound <= 1:
                raise UsageError(f"Expected a number from 0 to 1 for {name.replace('_', '-')}, got {bound}.")

    def refusal(self, report: ShadowReport) -> str:
        """The sentence that says why it may not go live, or ""."""
        for what, found, bound in (
            (f"shares with the live one of the first {report.k} hits", report.overlap, self.min_overlap),
            (f"finds of the true {report.k} nearest neighbours", report.new.recall, self.min_recall),
        ):
            if bound is not None and (found is None or found < bound):
                got = "nothing that can be measured" if found is None else f"{found:.3f}"
                return f"The new generation {what}: {got}; at least {bound:g} was asked for. The live one stays."
        for change in report.labels:
            if self.max_loss is not None and change.old - change.new > self.max_loss:
                return (
                    f"P@{report.k} of the label '{change.label}' falls from {change.old:.3f} to {change.new:.3f}; a "
                    f"loss of at most {self.max_loss:g} was allowed. The live generation stays."
                )
        return ""


def merged(best: Neighbours, keys: Keys, similarities: Similarities, k: int) -> Neighbours:
    """The k best of what was best so far and of a further block [queries, n], whose keys are all greater."""
    few = min(k, len(keys))
    if few < len(keys):
        places = np.argpartition(-similarities, few - 1, axis=1)[:, :few]
    else:
        places = np.broadcast_to(np.arange(few), (len(similarities), few))
    joined_keys = np.concatenate([best.keys, keys[places]], axis=1)
    joined = np.concatenate([best.similarities, np.take_along_axis(similarities, places, axis=1)], axis=1)
    order = np.lexsort((joined_keys, -joined), axis=1)[:, :k]
    found = np.take_along_axis(joined, order, axis=1)
    known = np.where(np.isneginf(found), -1, np.take_along_axis(joined_keys, order, axis=1))
    return Neighbours(known, found)


def nothing_yet(queries: int) -> Neighbours:
    return Neighbours(np.empty((queries, 0), np.int64), np.empty((queries, 0), np.float32))


def recall(found: Neighbours, exact: Neighbours) -> float | None:
    """Mean share of the exact neighbours that were found; one as near as the last of these may stand in for it."""
    there = (exact.keys >= 0).sum(axis=1)
    if not there.any():
        return None
    last = np.take_along_axis(exact.similarities, np.maximum(there - 1, 0)[:, None], axis=1)
    near = ((found.keys >= 0) & (found.similarities >= last - TOLERANCE)).sum(axis=1)
    asked = there > 0
    return float(np.minimum(near[asked] / there[asked], 1.0).mean())


def overlap(old: Answers, new: Answers) -> float | None:
    """Mean share of the hits that both have, of those of the longer answer."""
    shares = []
    for ours, theirs in zip(old, new, strict=True):
        longer = max(int((ours >= 0).sum()), int((theirs >= 0).sum()))
        if longer:
            shares.append(len(np.intersect1d(ours[ours >= 0], theirs[theirs >= 0])) / longer)
    return float(np.mean(shares)) if shares else None


def rank_correlation(old: Answers, new: Answers) -> float | None:
    """Spearman's coefficient of the two orders of the shared hits, mean of the queries that share two or more."""
    found = []
    for ours, theirs in zip(old, new, strict=True):
        place = {key: n for n, key in enumerate(theirs.tolist()) if key >= 0}
        places = np.array([place[key] for key in ours.tolist() if key in place])
        if len(places) > 1:
            ranks = np.argsort(np.argsort(places))
            apart = float(((ranks - np.arange(len(ranks))) ** 2).sum())
            found.append(1 - 6 * apart / (len(ranks) * (len(ranks) ** 2 - 1)))
    return float(np.mean(found)) if found else None


def changes(
    queries: Sequence[int],
    patients: Sequence[str],
    old: Answers,
    new: Answers,
    labels: Mapping[int, Sequence[Label]],
    *,
    k: int,
    least: int,
    seed: int,
) -> tuple[LabelChange, ...]:
    """Of every label that at least ``least`` of the queries (keys) carry, with more than one value; by name.

    ``patients``: of each query, "" when unknown. ``labels``: of queries and hits, by key.
    """
    values: dict[str, dict[int, set[str]]] = {}
    for key, of_case in labels.items():
        for label in of_case:
            values.setdefault(label.name, {}).setdefault(key, set()).add(label.value)
    found = []
    for name, of_key in sorted(values.items()):
        rows = [n for n, key in enumerate(queries) if key in of_key]
        if len(rows) >= least and len(set().union(*(of_key[queries[n]] for n in rows))) > 1:
            wanted = [of_key[queries[n]] for n in rows]
            before, after = (_precision(answers[rows], wanted, of_key, k) for answers in (old, new))
            _, whose = np.unique([patients[n] or f"\0{n}" for n in rows], return_inverse=True)
            interval = patient_bootstrap(after - before, whose, seed)
            found.append(
                LabelChange(name, len(rows), float(before.mean()), float(after.mean()), interval.low, interval.high)
            )
    return tuple(found)


def _precision(
    answers: Answers, wanted: Sequence[set[str]], values: Mapping[int, set[str]], k: int
) -> npt.NDArray[np.float64]:
    """P@k of each query: hits that share a value, over k, also where fewer could be found."""
    hits = [
        sum(not of_query.isdisjoint(values.get(key, ())) for key in row.tolist())
        for row, of_query in zip(answers, wanted, strict=True)
    ]
    return np.array(hits, np.float64) / k


def percentile(milliseconds: Sequence[float], share: float) -> float | None:
    """None of nothing."""
    return float(np.percentile(milliseconds, share)) if milliseconds else None
