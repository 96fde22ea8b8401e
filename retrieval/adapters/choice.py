"""Which head to keep: several are learned on the train part, one is chosen on the validation part, and only then does
anybody look at the test part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from retrieval.adapters.gain import gain_of, mean_precision
from retrieval.adapters.head import HeadKind, MetricHead
from retrieval.adapters.split import Cohort, Numbers, Split
from retrieval.adapters.training import Learned, Lessons, LossKind, Plan, Start, learn
from retrieval.types import UnitRows

STARTS: tuple[Start, ...] = ("identity", "whitened")
PULL = 0.3  # back to the start; a third or three times of it changes little
RISK = 0.05  # of taking a head whose gain on the validation part is luck
LOOKED_AT = 1500  # most validation cases that are ranked: more cost time and change little


@dataclass(frozen=True, slots=True)
class Tried:
    """One plan, the mean average precision of its best head on the validation part, and the step that was met at."""

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
        return mean_precision(head.apply(rows[here]), cohort.members[here], cohort.groups[here])

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
    return _judged(rows, cohort, here, best[0], best[1].head, tuple(tried))


def _judged(
    rows: UnitRows, cohort: Cohort, judges: Numbers, plan: Plan, head: MetricHead, tried: tuple[Tried, ...]
) -> Choice:
    members, groups = cohort.members[judges], cohort.groups[judges]
    placed = head.apply(rows[judges])
    gain = gain_of(rows[judges], placed, members, groups)
    before = mean_precision(rows[judges], members, groups)
    # The best of several is better by luck than it is: each plan takes its share of the risk (Bonferroni). The looks
    # within a plan share one, as their heads are nearly the same; shuffled labels bear that out.
    low = gain.above(RISK / len(tried))
    return Choice(head, plan, before, before + gain.value, low, tried)
