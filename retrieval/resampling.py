"""Bootstrap draws of whole patients, shared by all figures of a report, so that differences are paired.

Cases of one patient are not independent, so patients are drawn with replacement and bring all their cases
(Efron, Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13; the cluster bootstrap). One set of draws
serves every figure: where two encoders or two groups are compared, both see the same patients in each draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.metrics import Interval

Weights = npt.NDArray[np.float32] | npt.NDArray[np.float64]  # [draws, cases]: how often each case's patient was drawn
Flags = npt.NDArray[np.bool_]
_CELLS = 1 << 22  # weights held at a time


@dataclass(frozen=True, slots=True)
class Draws:
    """``times`` [draws, patients]: how often each was drawn. ``cluster`` [cases]: which patient each case is of."""

    times: npt.NDArray[np.uint16]
    cluster: npt.NDArray[np.int64]
    level: float

    @classmethod
    def of(cls, patients: npt.NDArray[np.int64], seed: int, resamples: int = 1000, level: float = 0.95) -> Draws:
        """Draws for cases of these ``patients`` [cases] (any whole numbers)."""
        _, cluster = np.unique(patients, return_inverse=True)
        count = int(cluster.max(initial=-1)) + 1
        generator = np.random.default_rng(seed)
        of_patient = np.zeros((count, resamples), dtype=np.uint16)  # case after case, which is how sums are taken
        for draw in range(resamples):
            of_patient[:, draw] = np.bincount(generator.integers(0, count, count), minlength=count)
        return cls(of_patient.T, cluster, level)

    def weights(self, chosen: npt.NDArray[np.int64]) -> Iterator[Weights]:
        """Weights of the ``chosen`` cases [c], some draws at a time, [draws, c]; float32, exact for whole numbers."""
        step = max(1, _CELLS // max(len(chosen), 1))
        of_patient, patients = self.times.T, self.cluster[chosen]
        for start in range(0, len(self.times), step):
            yield of_patient[patients, start : start + step].astype(np.float32).T

    def means(self, values: npt.NDArray[np.float64], chosen: Flags | None = None) -> npt.NDArray[np.float64]:
        """The mean of ``values`` [cases] in every draw, [draws]; NaN values and cases that are not chosen left out."""
        kept = np.isfinite(values) if chosen is None else np.isfinite(values) & chosen
        size = self.times.shape[1]
        sums = np.bincount(self.cluster[kept], weights=values[kept], minlength=size)
        counts = np.bincount(self.cluster[kept], minlength=size).astype(np.float64)
        present = np.flatnonzero(counts)
        times = self.times[:, present].astype(np.float64)
        return _ratio(times @ sums[present], times @ counts[present])

    def interval(self, drawn: npt.NDArray[np.float64]) -> Interval:
        """The percentile interval of a figure's values in all draws [draws]; draws without the figure are left out."""
        kept = drawn[np.isfinite(drawn)]
        if not len(kept):
            return Interval(float("nan"), float("nan"))
        low, high = np.quantile(kept, [(1 - self.level) / 2, (1 + self.level) / 2])
        return Interval(float(low), float(high))


def _ratio(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    out = np.full(part.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
