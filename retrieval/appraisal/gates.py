"""Bounds that figures must keep, for continuous integration: ``P@5=0.6``, ``AUC=0.7``, ``AUC[Effusion]=0.8``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retrieval.errors import UsageError

LOWER_IS_BETTER = ("ECE", "Brier")


@dataclass(frozen=True, slots=True)
class Gate:
    """A figure and the bound it must keep: at least it, or at most it for errors."""

    figure: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Gate:
        """From ``P@5=0.6``. The name may hold an equals sign of its own: the last one counts."""
        name, equals, number = text.rpartition("=")
        try:
            bound = float(number)
        except ValueError:
            bound = math.nan
        if not equals or not name.strip() or not math.isfinite(bound):
            raise UsageError(f"Expected a figure and its bound, such as P@5=0.6, got '{text}'.")
        return cls(name.strip(), bound)

    def broken(self, figures: Mapping[str, float]) -> str | None:
        """A sentence when the figure is on the wrong side of its bound, or could not be measured; else None."""
        if self.figure not in figures:
            raise UsageError(f"There is no figure '{self.figure}'; there are: {', '.join(figures)}.")
        value, name = figures[self.figure], self.figure
        if not math.isfinite(value):
            return f"{name} could not be measured, so it does not keep {self.bound:g}."
        if name in LOWER_IS_BETTER:
            return f"{name} is {value:.4f}, above the {self.bound:g} allowed." if value > self.bound else None
        return f"{name} is {value:.4f}, below the {self.bound:g} asked for." if value < self.bound else None


def broken_gates(gates: Sequence[Gate], figures: Mapping[str, float]) -> tuple[str, ...]:
    """A sentence for every bound that is not kept. UsageError for a figure that there is not."""
    return tuple(sentence for gate in gates if (sentence := gate.broken(figures)) is not None)
