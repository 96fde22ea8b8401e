"""One contender, in a process of its own: its memory is free again afterwards, and a crash ends nobody else's turn."""

from __future__ import annotations

import gc
import tempfile
import traceback
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.search.contender import Absent, Task
from benchmarks.search.contenders import maker
from benchmarks.search.measure import Measured, Questions, measure
from retrieval.threads import wait_briefly


@dataclass(frozen=True, slots=True)
class Trial:
    """What each contender is given. ``rows``: a .npy file of float32 [n, dim], which each maps into its memory."""

    rows: Path
    questions: Questions


@dataclass(frozen=True, slots=True)
class Left:
    """A contender that took no part, and why."""

    name: str
    reason: str


def tried(name: str, trial: Trial) -> Measured | Left:
    """Build and measure one contender."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=wait_briefly) as pool:
        told = pool.submit(_run, name, trial)
        error = told.exception()
        if error is None:
            return told.result()
    if isinstance(error, Absent):
        return Left(name, str(error))
    if isinstance(error, BrokenProcessPool):
        return Left(name, "its process ended before it was done")
    traceback.print_exception(error)
    return Left(name, f"it failed with {type(error).__name__}")


def _run(name: str, trial: Trial) -> Measured:
    make = maker(name)
    rows = np.load(trial.rows, mmap_mode="r")
    with tempfile.TemporaryDirectory(prefix="precedent-search-", ignore_cleanup_errors=True) as folder:
        task = Task(rows, trial.questions.scopes, Path(folder))
        with make(task) as built:
            gc.collect()
            return measure(built, rows, trial.questions)
