"""Which path is fastest for this network on this machine, among those that give the same vectors.

Every path is compared with eager float32 on the same inputs, in turn and at the same time, so that another program that
slows the machine slows both. A path must stay within ``TOLERANCE`` of eager, and an image's vector must not depend on
the batch it comes in by more than ``INVARIANCE``: otherwise one fixed batch size is tried, else the path is left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval.encoders.base import unit_rows
from retrieval.encoders.paths.base import EAGER, FastPath, Forward
from retrieval.encoders.paths.choice import Choice, Trial
from retrieval.encoders.paths.execution import ANY_SIZE, BATCH, Execution, filled, inference, to_device, to_host
from retrieval.encoders.paths.known import KNOWN_PATHS
from retrieval.encoders.paths.machine import Machine
from retrieval.encoders.paths.memory import most_at_once
from retrieval.encoders.weights import one_line
from retrieval.errors import RejectedInput
from retrieval.types import UnitRows

if TYPE_CHECKING:
    import torch

TOLERANCE = 0.9995  # least cosine of a path's vectors to those of eager float32
INVARIANCE = 0.99999  # least cosine of an image's vectors in batches of different sizes
_FEW = 0.5  # of what INVARIANCE allows is allowed here: the inputs of a calibration are few
WORTH = 1.1  # a path must be faster by this than one that costs less to start
ENOUGH = 1000.0  # images a second on a CPU: reading the files takes longer than that
BEATEN = 3.0  # times eager: no float32 path is faster than such a reduced one
FIXED = 8  # inputs at a time for paths that are not the same at every size
INPUTS = 16
_LONG = 6.0  # seconds for one eager batch: past this fewer inputs must do
_FEWER = 8
_ROUNDS = 3
_SLOW = 1.5  # seconds for one eager batch: past this one round must do


@dataclass(frozen=True, slots=True)
class Found:
    """``forward`` is the path of ``choice``, built."""

    choice: Choice
    forward: Forward


def calibrate(
    execution: Execution,
    inputs: torch.Tensor,
    fingerprint: str,
    *,
    paths: Iterable[FastPath] = KNOWN_PATHS,
    thorough: bool = False,
) -> Found:
    """Try ``paths`` on ``inputs`` [n, ...] (on the CPU, n >= 1) and take the fastest that is true. Nothing is kept.

    ``thorough``: also those that take minutes to build. While it runs, nothing else is encoded by ``execution``.
    """
    device = execution.device
    machine = Machine.here(device)
    with execution.lock:
        bench = _Bench(execution.eager, inputs, device)
        best, trials = Found(_eager(fingerprint, machine, bench), execution.eager), []
        if device.type == "cpu" and bench.images_per_second >= ENOUGH:
            return best
        for path in paths:
            if (path.thorough and not thorough) or not path.fits(device, machine):
                continue
            if path.single and best.choice.speed >= BEATEN:
                trials.append(Trial(path.name, left_out=f"in float32 it would not beat {best.choice.path}"))
                continue
            trial, forward = bench.attempt(path)
            trials.append(trial)
            if forward is not None and trial.speed >= WORTH * best.choice.speed:
                best = Found(_taken(best.choice, trial), forward)
    return Found(_with_trials(best.choice, tuple(trials)), best.forward)


def _eager(fingerprint: str, machine: Machine, bench: _Bench) -> Choice:
    sizes = tuple(range(1, bench.most + 1)) if bench.most > BATCH else ANY_SIZE
    return Choice(fingerprint, machine, EAGER, sizes, 1.0, 1.0, len(bench.inputs))


def _taken(choice: Choice, trial: Trial) -> Choice:
    return Choice(choice.fingerprint, choice.machine, trial.path, trial.sizes, trial.speed, trial.cosine, choice.images)


def _with_trials(choice: Choice, trials: tuple[Trial, ...]) -> Choice:
    return Choice(
        choice.fingerprint,
        choice.machine,
        choice.path,
        choice.sizes,
        choice.speed,
        choice.cosine,
        choice.images,
        trials,
    )


class _Bench:
    """The eager network with its inputs and its answers: what a path is held against."""

    def __init__(self, eager: Forward, inputs: torch.Tensor, device: torch.device) -> None:
        self._eager = eager
        self._device = device
        self._seconds(eager, inputs[:1])  # the first call of all loads and allocates
        once = min(self._seconds(eager, inputs[:1]) for _ in range(2))
        self.inputs = inputs if INPUTS * once < _LONG else inputs[:_FEWER]
        self.most = most_at_once(lambda batch: self._rows(eager, batch), self.inputs, device)
        self._batch = self.inputs if self.most <= BATCH else _tiled(self.inputs, self.most)
        self._reference = self._rows(eager, self.inputs)
        self.images_per_second = len(self._batch) / self._seconds(eager, self._batch)

    def attempt(self, path: FastPath) -> tuple[Trial, Forward | None]:
        """The path's figures, and the path itself unless it is left out."""
        try:
            forward = path.build(self._eager, to_device(self.inputs, self._device))
            return self._measure(path, forward)
        except Exception as error:  # noqa: BLE001 - whatever another library raises, there are other paths
            return Trial(path.name, left_out=_reason(error)), None

    def _measure(self, path: FastPath, forward: Forward) -> tuple[Trial, Forward | None]:
        rows = self._rows(forward, self.inputs)
        cosine = _least_cosine(rows, self._reference)
        if not cosine >= TOLERANCE:
            return Trial(path.name, cosine=cosine, left_out=f"its cosine to float32 is {cosine:.5f}"), None
        sizes, invariance = self._sizes(forward)
        if not sizes:
            why = f"an image's vectors differ by batch, cosine {invariance:.6f}"
            return Trial(path.name, 0.0, cosine, invariance, left_out=why), None
        return Trial(path.name, self._speed(forward, sizes[-1]), cosine, invariance, sizes), forward

    def _sizes(self, forward: Forward) -> tuple[tuple[int, ...], float]:
        """The batch sizes in which this path may run and how well they agree; () when there are none."""
        wanted = 1 - _FEW * (1 - INVARIANCE)
        ladder = _powers_of_two(min(self.most, len(self._batch)))
        invariance = self._agreement(forward, ladder)
        if invariance >= wanted:
            return ladder, invariance
        fixed = min(FIXED if self._device.type == "cpu" else 4 * FIXED, ladder[-1])
        at_fixed = self._agreement_at(forward, fixed)
        return ((fixed,), at_fixed) if at_fixed >= wanted else ((), max(invariance, at_fixed))

    def _agreement(self, forward: Forward, ladder: tuple[int, ...]) -> float:
        """Least cosine between the rows of the largest size and those of every other, and in another order."""
        largest = self._rows(forward, self._batch[: ladder[-1]])
        least = _least_cosine(self._rows(forward, self._batch[: ladder[-1]].flip(0)), largest[::-1])
        for size in ladder[:-1]:
            least = min(least, _least_cosine(self._rows(forward, self._batch[:size]), largest[:size]))
        return least

    def _agreement_at(self, forward: Forward, size: int) -> float:
        """Least cosine of rows at one size: among other neighbours, in other places, and alone, filled up."""
        batch = self._batch[:size]
        rows = self._rows(forward, batch)
        turned = self._rows(forward, batch.roll(size // 2, 0))
        alone = self._rows(forward, filled(batch[:1], size))
        return min(_least_cosine(turned, np.roll(rows, size // 2, axis=0)), _least_cosine(alone[:1], rows[:1]))

    def _speed(self, forward: Forward, size: int) -> float:
        """Times as fast as eager: the median of pairs measured one right after the other."""
        ratios = []
        for _ in range(_ROUNDS):
            eager = self._seconds(self._eager, self._batch)
            parts = [self._batch[start : start + size] for start in range(0, len(self._batch), size)]
            own = sum(self._seconds(forward, filled(part, size)) for part in parts)
            ratios.append(eager / own)
            if eager > _SLOW:
                break
        return statistics.median(ratios)

    def _seconds(self, forward: Forward, batch: torch.Tensor) -> float:
        started = time.perf_counter()
        with inference():
            to_host(forward(to_device(batch, self._device)))
        return time.perf_counter() - started

    def _rows(self, forward: Forward, batch: torch.Tensor) -> UnitRows:
        with inference():
            return unit_rows(to_host(forward(to_device(batch, self._device))))


def _least_cosine(rows: UnitRows, others: UnitRows) -> float:
    return float(np.einsum("nd,nd->n", rows.astype(np.float64), others.astype(np.float64)).min())


def _powers_of_two(most: int) -> tuple[int, ...]:
    return tuple(1 << power for power in range(most.bit_length()))


def _tiled(inputs: torch.Tensor, count: int) -> torch.Tensor:
    return inputs.repeat(-(-count // len(inputs)), *(1 for _ in inputs.shape[1:]))[:count]


def _reason(error: Exception) -> str:
    if isinstance(error, RejectedInput):
        return "it gave NaN or infinity"
    return f"{type(error).__name__}: {one_line(error)}"
