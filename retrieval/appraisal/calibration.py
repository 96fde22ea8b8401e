"""Whether probabilities come true: reliability, expected calibration error, Brier score, with bootstrap draws."""

from __future__ import annotations

import numpy as np

from retrieval.appraisal.statistics import CalibrationError, Mean, Numbers, taken
from retrieval.appraisal.types import Calibration
from retrieval.evidence.reliability import by_chance, reliability_bins
from retrieval.resampling import Draws, Flags


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
