"""Pure: whether what is said with probability p happens with probability p.

``probabilities``: float ``[n]``, 0 to 1; ``truth``: bool ``[n]``. Probabilities are put into bins of equal width; the
expected calibration error is the mean, over the cases, of how far the mean probability of a bin is from the share that
is true (Naeini, Cooper, Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015).

That error is not 0 for perfect probabilities: in a bin of few cases the share is off by chance. ``by_chance`` says what
it would be, for these probabilities and this many cases, if they were perfect (consistency resampling: Broecker, Smith,
"Increasing the reliability of reliability diagrams", Weather and Forecasting 22, 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]

BINS = 10
_RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One bin with cases in it: its bounds, their mean probability, the share of them that is true."""

    low: float
    high: float
    predicted: float
    observed: float
    count: int


@dataclass(frozen=True, slots=True)
class ChanceError:
    """The calibration error that perfect probabilities would show: its mean, and what 95 of 100 stay below."""

    mean: float
    high: float


def reliability_bins(probabilities: Probabilities, truth: Truth, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """The bins that hold any case, in order; 1 lies in the last one."""
    at = _bin(probabilities, bins)
    return tuple(
        ReliabilityBin(
            low=n / bins,
            high=(n + 1) / bins,
            predicted=float(probabilities[at == n].mean()),
            observed=float(truth[at == n].mean()),
            count=int((at == n).sum()),
        )
        for n in np.unique(at).tolist()
    )


def calibration_error(probabilities: Probabilities, truth: Truth, bins: int = BINS) -> float:
    """The expected calibration error, 0 to 1; NaN without a case."""
    if not len(probabilities):
        return float("nan")
    return float(_errors(_bin(probabilities, bins), probabilities, truth[None, :])[0])


def by_chance(probabilities: Probabilities, bins: int = BINS, seed: int = 0) -> ChanceError:
    """What ``calibration_error`` of these probabilities would be if each were right."""
    happened = np.random.default_rng(seed).random((_RESAMPLES, len(probabilities))) < probabilities
    errors = _errors(_bin(probabilities, bins), probabilities, happened)
    return ChanceError(float(errors.mean()), float(np.quantile(errors, 0.95)))


def error_by_chance(probabilities: Probabilities, bins: int = BINS) -> float:
    """The mean of ``by_chance`` without drawing: de Moivre's mean deviation of a binomial, the probabilities of a
    bin taken for their mean (Diaconis, Zabell, *Statistical Science* 6, 1991); NaN without a case."""
    from scipy.stats import binom

    if not len(probabilities):
        return float("nan")
    at = _bin(probabilities, bins)
    count = np.bincount(at, minlength=bins)
    mean = np.bincount(at, weights=probabilities, minlength=bins) / np.maximum(count, 1)
    above = np.minimum(np.floor(count * mean) + 1, count)
    deviations = 2 * above * (1 - mean) * binom.pmf(above, count, mean)
    return float(deviations.sum() / len(probabilities))


def mean_calibration_error(probabilities: Probabilities, truth: Truth, bins: int = BINS) -> float:
    """The mean over values of each one's calibration error; both ``[n, values]`` (class-wise ECE: Kull et al., "Beyond
    temperature scaling", NeurIPS 2019)."""
    columns = zip(probabilities.T, truth.T, strict=True)
    return float(np.mean([calibration_error(column, happened, bins) for column, happened in columns]))


def confidence_error(probabilities: Probabilities, truth: Truth, bins: int = BINS) -> float:
    """The calibration error of the most probable value of each case (Guo et al., "On calibration of modern neural
    networks", ICML 2017); both ``[n, values]``."""
    best = probabilities.argmax(axis=1)[:, None]
    return calibration_error(
        np.take_along_axis(probabilities, best, axis=1)[:, 0], np.take_along_axis(truth, best, axis=1)[:, 0], bins
    )


def _bin(probabilities: Probabilities, bins: int) -> npt.NDArray[np.int64]:
    return np.minimum((probabilities * bins).astype(np.int64), bins - 1)


def _errors(at: npt.NDArray[np.int64], probabilities: Probabilities, truth: Truth) -> Probabilities:
    """The error for each row of ``truth`` [m, n], [m]."""
    gaps = np.stack([((truth - probabilities) * (at == n)).sum(axis=1) for n in np.unique(at).tolist()])
    return np.asarray(np.abs(gaps).sum(axis=0) / max(len(probabilities), 1), dtype=np.float64)
