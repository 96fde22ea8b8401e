"""Which head to keep: several are learned on the train part, one is chosen on the validation part, and only then does
anybody look at the test part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from retrieval import metrics
from retrieval.adapters.head import HeadKind, MetricHead
from retrieval.adapters.split import Cohort, Members, Numbers, Split
from retrieval.adapters.training import Learned, Lessons, LossKind, Plan, Start, learn
from retrieval.types import UnitRows

STARTS: tuple[Start, ...] = ("identity", "whitened")
PULL = 0.3  # back to the start; a third or three times of it changes little
RISK = 0.05  # of taking a head whose gain on the validation part is luck
RESAMPLES = 2000
LOOKED_AT = 1500  # validation cases in one look while learning; the choice is made on all of them
_QUERIES = 512  # rows of similarities held at a time

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tried:
    """One plan, its mean average precision on the validation part, and the step its best head was met at."""

    plan: Plan
    validation: float
    steps: int


@dataclass(frozen=True, slots=True)
class Choice:
    """``before`` and ``after``: mAP on the validation part. ``gain_low``: what the gain exceeds but for ``RISK``."""

    head: MetricHead
    plan: Plan
    before: float
    after: float
    gain_low: float
    tried: tuple[Tried, ...]

    @property
    def improves(self) -> bool:
        """Whether the gain on the validation part is more than luck and the number of heads tried explain."""
        return self.gain_low > 0.0


def plans(head: HeadKind | None, loss: LossKind | None) -> tuple[Plan, ...]:
    """What is tried: every way that is left open."""
    heads: tuple[HeadKind, ...] = (head,) if head else ("linear", "mlp")
    losses: tuple[LossKind, ...] = (loss,) if loss else ("proxy", "supcon")
    return tuple(Plan(*way, PULL) for way in product(heads, losses, STARTS))


def choose(
    rows: UnitRows,
    cohort: Cohort,
    parts: Split,
    base: str,
    ways: Sequence[Plan],
    seed: int,
    told: Callable[[Tried], None] | None = None,
) -> Choice:
    """The head of the best plan by validation mAP. ``rows``: stored vectors of the cohort [n, dim], of ``base``.

    Neither a test row nor a test label is used. ``told`` hears of each plan when it has been tried.
    """
    here = np.sort(np.random.default_rng(seed).permutation(parts.validation)[:LOOKED_AT])
    lessons = Lessons(rows[parts.train], cohort.members[parts.train], cohort.groups[parts.train])

    def look(head: MetricHead) -> float:
        return float(np.nanmean(average_precisions(head.apply(rows[here]), cohort.members[here], cohort.groups[here])))

    best: tuple[Plan, Learned] | None = None
    tried = []
    for plan in ways:
        learned = learn(plan, base, lessons, look, seed)
        tried.append(Tried(plan, learned.score, learned.steps))
        if told:
            told(tried[-1])
        if best is None or learned.score > best[1].score:
            best = plan, learned
    if best is None:
        raise ValueError("Expected at least one plan.")
    return _judged(rows, cohort, parts.validation, best[0], best[1].head, tuple(tried), seed)


def _judged(
    rows: UnitRows,
    cohort: Cohort,
    validation: Numbers,
    plan: Plan,
    head: MetricHead,
    tried: tuple[Tried, ...],
    seed: int,
) -> Choice:
    members, groups = cohort.members[validation], cohort.groups[validation]
    before = average_precisions(rows[validation], members, groups)
    after = average_precisions(head.apply(rows[validation]), members, groups)
    # Of many heads the best looks better than it is: each tried takes its share of the risk (Bonferroni).
    level = 1.0 - 2.0 * RISK / len(tried)
    gain = metrics.patient_bootstrap(after - before, groups, seed, RESAMPLES, level)
    return Choice(head, plan, float(np.nanmean(before)), float(np.nanmean(after)), gain.low, tried)


def average_precisions(rows: UnitRows, members: Members, groups: Numbers) -> Scores:
    """AP [n] of each row asking for the rows of other groups; NaN where no other group shares a value."""
    parts = []
    for start in range(0, len(rows), _QUERIES):
        asked = slice(start, start + _QUERIES)
        forbidden = groups[asked, None] == groups[None, :]
        relevant = (members[asked] @ members.T > 0) & ~forbidden
        similarities = np.where(forbidden, -np.inf, rows[asked] @ rows.T)
        order = np.argsort(-similarities, axis=1, kind="stable")
        ranked = np.take_along_axis(relevant, order, axis=1)
        parts.append(metrics.average_precision(ranked, relevant.sum(axis=1)))
    return np.concatenate(parts) if parts else np.empty(0)
