"""Pure: whether what was added lately is like what was there before, figure by figure, with a plain verdict.

Kinds (modality, body part, sex, source) are compared by the chi-squared test of independence, ages and closeness by the
two-sample Kolmogorov-Smirnov test, one case of each patient, since cases of one patient are not independent. How large
a change is tells the population stability index: below 0.1 little, above 0.25 a lot, as is usual in credit scoring
(Siddiqi, Credit Risk Scorecards, 2006). The tests together raise a false alarm at most as often as ``ALARM`` (Holm,
A simple sequentially rejective multiple test procedure, 1979).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ALARM = 0.05  # share of comparisons without any change that end in an alarm
FEW = 20  # patients on either side below which nothing is compared
RARE = 5  # expected cases below which values are compared as one: what the chi-squared test needs
BINS = 10  # of the stability index of numbers, by tenths of the earlier ones
UNKNOWN = "unknown"
OTHER = "all others"
FENCE = 3.0  # interquartile ranges below the first quartile: Tukey's outer fence


@dataclass(frozen=True, slots=True)
class ValueChange:
    """One value: its share before and lately, 0 to 1."""

    value: str
    before: float
    lately: float


@dataclass(frozen=True, slots=True)
class Change:
    """One figure compared. ``p_value``: of the test, as it is; ``drifted``: whether it stands when all tests of the
    report are taken together. ``stability``: the population stability index. ``values``: those whose share changed
    most, or for numbers the medians before and lately."""

    name: str
    test: str
    before: int  # patients
    lately: int
    statistic: float
    p_value: float
    stability: float
    drifted: bool = False
    values: tuple[ValueChange, ...] = ()
    medians: tuple[float, float] | None = None


def kinds_change(name: str, before: Sequence[str], lately: Sequence[str]) -> Change | None:
    """By the values, one per patient; None where there are too few patients or only one value."""
    from scipy.stats import chi2_contingency

    counts = [Counter(value or UNKNOWN for value in side) for side in (before, lately)]
    table, names = _table(counts)
    if min(len(before), len(lately)) < FEW or len(names) < 2:
        return None
    tested = chi2_contingency(table, correction=False)
    shares = table / table.sum(axis=1, keepdims=True)
    order = np.argsort(-np.abs(shares[1] - shares[0]), kind="stable")
    return Change(
        name=name,
        test="chi-squared",
        before=len(before),
        lately=len(lately),
        statistic=float(tested.statistic),
        p_value=float(tested.pvalue),
        stability=stability_index(table[0], table[1]),
        values=tuple(ValueChange(names[n], float(shares[0, n]), float(shares[1, n])) for n in order[:3].tolist()),
    )


def _table(counts: list[Counter[str]]) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Counts [2, values], the rare values taken together; and the names of the values."""
    totals = [sum(of.values()) for of in counts]
    together = counts[0] + counts[1]
    share = min(totals) / max(1, sum(totals))
    common = sorted(value for value, count in together.items() if count * share >= RARE)
    rows = [[of[value] for value in common] for of in counts]
    rest = [total - sum(row) for total, row in zip(totals, rows, strict=True)]
    if any(rest):
        rows = [[*row, left] for row, left in zip(rows, rest, strict=True)]
        common.append(OTHER)
    return np.array(rows, dtype=np.float64), common


def numbers_change(name: str, before: Sequence[float], lately: Sequence[float]) -> Change | None:
    """By the numbers, one per patient; None where there are too few."""
    from scipy.stats import ks_2samp

    if min(len(before), len(lately)) < FEW:
        return None
    earlier, later = np.asarray(before, dtype=np.float64), np.asarray(lately, dtype=np.float64)
    tested = ks_2samp(earlier, later)
    edges = np.unique(np.quantile(earlier, np.linspace(0, 1, BINS + 1)[1:-1]))
    binned = [
        np.bincount(np.searchsorted(edges, side, side="right"), minlength=len(edges) + 1) for side in (earlier, later)
    ]
    return Change(
        name=name,
        test="Kolmogorov-Smirnov",
        before=len(earlier),
        lately=len(later),
        statistic=float(tested.statistic),
        p_value=float(tested.pvalue),
        stability=stability_index(*binned),
        medians=(float(np.median(earlier)), float(np.median(later))),
    )


def stability_index(before: npt.ArrayLike, lately: npt.ArrayLike) -> float:
    """Sum of (q - p) ln(q / p) over the values, of counts of the same values; half a case is added to each count."""
    p, q = (np.asarray(side, dtype=np.float64) + 0.5 for side in (before, lately))
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((q - p) * np.log(q / p)))


def holm(p_values: Sequence[float], alarm: float = ALARM) -> list[bool]:
    """Which of the tests stand when the chance of any false alarm among them is to be at most ``alarm``."""
    stands = [False] * len(p_values)
    for rank, n in enumerate(np.argsort(p_values, kind="stable").tolist()):
        if p_values[n] > alarm / (len(p_values) - rank):
            break
        stands[n] = True
    return stands


def fence(similarities: npt.NDArray[np.float64]) -> float:
    """Below this a nearest similarity is far out; -inf for fewer than ``FEW``."""
    if len(similarities) < FEW:
        return -np.inf
    low, high = np.quantile(similarities, [0.25, 0.75])
    return float(low - FENCE * (high - low))


def verdict(changes: Sequence[Change], before: int, lately: int) -> str:
    """One sentence. ``before``, ``lately``: patients."""
    if min(before, lately) < FEW:
        return (
            f"Too few patients to tell: {before:,} before and {lately:,} lately, where {FEW} on each side are needed."
        )
    found = [_named(change) for change in changes if change.drifted]
    if not found:
        return f"No drift found in {len(changes)} comparisons of {lately:,} patients lately with {before:,} before."
    return f"What was added lately differs: {'; '.join(found)}."


def _named(change: Change) -> str:
    size = "a lot" if change.stability > 0.25 else "moderately" if change.stability >= 0.1 else "little"
    if change.medians is not None:
        how = f"median {change.medians[0]:.3g}, now {change.medians[1]:.3g}"
    else:
        how = ", ".join(f"{each.value} {each.before:.0%}, now {each.lately:.0%}" for each in change.values[:2])
    return f"{change.name}, {size} ({how})"
