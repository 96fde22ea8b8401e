"""Pure: from shares of votes to probabilities, and which way of doing so holds on patients it was not fitted on.

Votes are first drawn towards the base rates, as if one more neighbour voted as the gallery does: of five neighbours
none may have a rare finding, which is no proof that the query has not. What remains wrong is mended in one of three
ways, chosen by the Brier score on patient-disjoint folds:

* ``none``: the votes as they are.
* ``temperature``: how far votes move a probability from its base rate, on the scale of log odds, is multiplied by one
  factor (Guo et al., "On calibration of modern neural networks", ICML 2017; there towards equal probabilities, here
  towards base rates, so that votes worth nothing end as the base rate and not as one half).
* ``isotonic``: for each value a step function that never falls (Zadrozny, Elkan, "Transforming classifier scores into
  accurate multiclass probability estimates", KDD 2002), scaled to a sum of 1 where a case has one value. Where it is
  flat it leans by a thousandth towards the votes: thresholds are chosen on probabilities, and on a wide step there
  would be none to choose.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.evidence.votes import Weights

Probabilities = npt.NDArray[np.float64]  # [n, values], 0 to 1
Truth = npt.NDArray[np.bool_]  # [n, values]
Flags = npt.NDArray[np.bool_]

_LEAN = 1e-3  # share of the votes themselves in a step
_LEAST = 1e-9  # of a probability whose logarithm is taken
_MOST_FACTOR = 4.0


class Method(StrEnum):
    """How votes become probabilities; the simplest first."""

    NONE = "none"
    TEMPERATURE = "temperature"
    ISOTONIC = "isotonic"


def shares_of(weights: Weights, members: npt.NDArray[np.bool_]) -> Probabilities:
    """The share of the votes that each value has, [q, values], of weights [q, k] of cases that have them,
    bool [q, k, values]."""
    return np.asarray(np.matmul(weights[:, None, :], members.astype(np.float64))[:, 0, :], dtype=np.float64)


def smoothed(shares: Probabilities, weights: Weights, rates: Probabilities) -> Probabilities:
    """Shares [q, values] drawn towards the base rates ([values] or [q, values]) by one more voter.

    How many voters there are is counted by their weights [q, k], as ``1 / sum(weight ** 2)`` (Kish's effective size).
    """
    squares = (weights**2).sum(axis=1, keepdims=True)
    voters = np.divide(1.0, squares, out=np.zeros_like(squares), where=squares > 0)
    return np.asarray((voters * shares + rates) / (voters + 1.0), dtype=np.float64)


def brier(probabilities: Probabilities, truth: Truth) -> npt.NDArray[np.float64]:
    """The Brier score of each case, [n]: the squares of what is missing or too much, summed over values."""
    return np.asarray(((probabilities - truth) ** 2).sum(axis=1), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A fitted way. ``rates``: base rates [values]. ``factor``: of a temperature. ``steps``: for each value its step
    function, None for a value with too few patients, which keeps its votes. ``exclusive``: a case has one value.
    """

    method: Method
    rates: npt.NDArray[np.float64]
    exclusive: bool
    factor: float = 1.0
    steps: tuple[Any, ...] = ()

    def apply(self, votes: Probabilities) -> Probabilities:
        """Probabilities [n, values] of smoothed votes [n, values]; rows sum to 1 where a case has one value."""
        out = votes
        if self.method is Method.TEMPERATURE:
            out = scaled(votes, self.rates, self.factor, exclusive=self.exclusive)
        elif self.method is Method.ISOTONIC:
            columns = [
                column if step is None else (1.0 - _LEAN) * step.predict(column) + _LEAN * column
                for column, step in zip(votes.T, self.steps, strict=True)
            ]
            out = np.stack(columns, axis=1)
        return _sum_to_one(out, self.rates) if self.exclusive else np.clip(out, 0.0, 1.0)


def fit(
    method: Method,
    votes: Probabilities,
    truth: Truth,
    rates: npt.NDArray[np.float64],
    enough: Flags,
    *,
    exclusive: bool,
) -> Calibrator:
    """Fit one way on smoothed votes [n, values]. ``enough``: values with patients enough for steps of their own."""
    if method is Method.TEMPERATURE:
        return Calibrator(method, rates, exclusive, factor=_factor(votes, truth, rates, exclusive=exclusive))
    if method is Method.ISOTONIC:
        columns = zip(votes.T, truth.T, enough.tolist(), strict=True)
        steps = tuple(_steps(column, true) if use else None for column, true, use in columns)
        return Calibrator(method, rates, exclusive, steps=steps)
    return Calibrator(method, rates, exclusive)


def scaled(votes: Probabilities, rates: npt.NDArray[np.float64], factor: float, *, exclusive: bool) -> Probabilities:
    """Votes [n, values] moved ``factor`` times as far from their base rates in log odds (logarithms of probabilities,
    and a sum of 1, where a case has one value)."""
    logits, origin = (_log, _log) if exclusive else (_logit, _logit)
    moved = origin(rates) + factor * (logits(votes) - origin(rates))
    if exclusive:
        powers = np.exp(moved - moved.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(moved, -700.0, 700.0))))


def _log(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.log(np.maximum(probabilities, _LEAST))


def _logit(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return _log(probabilities) - _log(1.0 - probabilities)


def _factor(votes: Probabilities, truth: Truth, rates: npt.NDArray[np.float64], *, exclusive: bool) -> float:
    from scipy.optimize import minimize_scalar

    def loss(factor: float) -> float:
        return float(brier(scaled(votes, rates, factor, exclusive=exclusive), truth).mean())

    return float(minimize_scalar(loss, bounds=(0.0, _MOST_FACTOR), method="bounded").x)


def _steps(votes: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> Any:
    from sklearn.isotonic import IsotonicRegression

    return IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(votes, truth.astype(np.float64))


def _sum_to_one(probabilities: Probabilities, rates: npt.NDArray[np.float64]) -> Probabilities:
    """Rows scaled to a sum of 1; where steps left nothing at all, the base rates."""
    sums = probabilities.sum(axis=1, keepdims=True)
    fallback = np.broadcast_to(rates / rates.sum(), probabilities.shape)
    return np.asarray(np.divide(probabilities, sums, out=fallback.copy(), where=sums > 0))
