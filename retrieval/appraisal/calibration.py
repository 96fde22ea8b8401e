"""Whether probabilities come true: reliability, expected calibration error, Brier score, with bootstrap draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.appraisal.statistics import Mean, Numbers, taken
from retrieval.appraisal.types import Calibration
from retrieval.evidence.reliability import BINS, by_chance, mean_calibration_error, reliability_bins
from retrieval.resampling import Draws, Flags


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """Expected calibration error of ``probabilities`` [cases, values] for ``truth``, mean over the values.

    Drawing cases again adds noise to every bin, and noise of either sign adds to this error. So draws are moved by how
    much their mean exceeds the value (the bootstrap estimate of bias; Efron, Tibshirani 1993, chapter 10), not below 0.
    """

    name: str
    probabilities: Numbers
    truth: Flags

    def count(self, chosen: Flags) -> int:
        return int(chosen.sum())

    def value(self, chosen: Flags) -> float:
        if not chosen.any():
            return float("nan")
        return mean_calibration_error(self.probabilities[chosen], self.truth[chosen])

    def drawn(self, draws: Draws, chosen: Flags) -> Numbers:
        times = draws.times.astype(np.float64)
        patients = times.shape[1]
        cluster = draws.cluster[chosen]
        whole = times @ np.bincount(cluster, minlength=patients)
        total = np.zeros(len(times))
        for column, outcomes in zip(self.probabilities[chosen].T, self.truth[chosen].T, strict=True):
            cells = cluster * BINS + np.minimum((column * BINS).astype(np.int64), BINS - 1)
            excess = np.bincount(cells, weights=column - outcomes, minlength=patients * BINS)
            total += np.abs(times @ excess.reshape(patients, BINS)).sum(axis=1)
        out = np.full(len(times), np.nan)
        np.divide(total / self.truth.shape[1], whole, out=out, where=whole > 0)
        moved: Numbers = np.maximum(out - (np.nanmean(out) - self.value(chosen)), 0.0)
        return moved


def calibration(probabilities: Numbers, shares: Numbers, truth: Flags, draws: Draws, seed: int) -> Calibration:
    """Reliability of held-out probabilities, errors of these and of the raw shares; all [cases, values]."""
    everyone = np.ones(len(truth), dtype=bool)
    by_luck = [by_chance(column, seed=seed).mean for column in probabilities.T]
    return Calibration(
        bins=reliability_bins(probabilities.ravel(), truth.ravel()),
        error=taken(CalibrationError("ECE", probabilities, truth), draws, everyone),
        error_by_chance=float(np.mean(by_luck)),
        raw_error=taken(CalibrationError("ECE of shares", shares, truth), draws, everyone),
        brier=taken(Mean("Brier", ((probabilities - truth) ** 2).mean(axis=1)), draws, everyone),
        raw_brier=taken(Mean("Brier of shares", ((shares - truth) ** 2).mean(axis=1)), draws, everyone),
    )
