"""Pure: how strange a value is beside those of a reference, with a false rate that holds whatever their distribution.

The p-value of conformal prediction is a rank: of n reference values and the new one, the share that is at least as
strange as the new one. If the new one is of their kind, so that it might as well have been any of them, its p-value is
at most alpha with a probability of at most alpha (Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World,
2005). That is true on average over references. With one reference the rate at which values are called strange is itself
random, Beta(l, n + 1 - l) when a value must be below the l-th smallest (Vovk, Conditional validity of inductive
conformal predictors, 2012); ``allowance`` chooses l so that this rate is within alpha for all but a few references.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


def allowance(count: int, alpha: float, assurance: float) -> int:
    """The largest l for which the true rate of values below the l-th smallest of ``count`` is at most ``alpha`` with a
    probability of at least ``assurance``; 0 when there are too few for any.

    It is so when at least l of them are below the alpha-quantile, and how many are is binomial: P(at least l of n) is
    the regularised incomplete beta function I_alpha(l, n - l + 1) (Abramowitz & Stegun 26.5.24).
    """
    from scipy.special import betainc  # scipy.stats has it by name, and would be most of the time of a first search

    if count < 1:
        return 0
    at_least = np.arange(1, count + 1)
    return int(np.searchsorted(-betainc(at_least, count - at_least + 1, alpha), -assurance, side="right"))


def least_count(alpha: float, assurance: float) -> int:
    """Of how many values on ``allowance`` is not 0."""
    return math.ceil(math.log1p(-assurance) / math.log1p(-alpha))


@dataclass(frozen=True, slots=True)
class Reference:
    """What is usual: values [n] in ascending order, the smaller the stranger, of ``independent`` patients.

    ``granted``: what ``allowance`` grants to so many patients. ``allowed``: a value is strange when it is below the one
    at this place, counted from 1; 0: none is.
    """

    values: Values
    independent: int
    granted: int
    allowed: int

    @classmethod
    def of(cls, values: npt.ArrayLike, independent: int, alpha: float, assurance: float) -> Reference:
        """Of finite values in any order. Several values of one patient are worth no more than one to ``allowance``:
        the share of values below which it is strange is that which it grants to so many patients."""
        known = np.sort(np.asarray(values, dtype=np.float64))
        granted = allowance(independent, alpha, assurance)
        allowed = max(1, granted * len(known) // independent) if granted else 0
        return cls(known, independent, granted, allowed)

    @property
    def can_tell(self) -> bool:
        """Whether there are enough patients for any value to be called strange."""
        return self.allowed > 0

    def p_value(self, value: float) -> float:
        """Share, in (0, 1], of the reference and the value itself that is at most the value."""
        return float(np.searchsorted(self.values, value, side="right") + 1) / (len(self.values) + 1)

    def strange(self, value: float) -> bool:
        """Whether it is below the value at the place that is allowed."""
        return self.can_tell and value < float(self.values[self.allowed - 1])
