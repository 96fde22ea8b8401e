"""What a search plan is to this benchmark: something that is built, has a size, and searches by effort."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.search.scopes import Scope
from retrieval.types import Keys, UnitRows

K = 10
THREADS = os.cpu_count() or 1
# The same for every graph that isn't ours: links of a node, and how widely is looked while it is built.
LINKS = 16
BUILD_EF = 150
EFFORTS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)

# Keys [q, K] for queries [q, dim], padded with -1; keys are positions + 1. One query takes one thread, many take all.
Search = Callable[[UnitRows], Keys]


class Absent(Exception):
    """The contender can't take part; the text says why."""


@dataclass(frozen=True, slots=True)
class Task:
    """``rows`` to build over (memory-mapped), ``scopes`` that will be asked for, an empty ``folder`` to write to."""

    rows: UnitRows
    scopes: tuple[Scope, ...]
    folder: Path


@dataclass(frozen=True, slots=True)
class Effort:
    """``client``: what one client that asks within a scope uses, a connection if need be.

    What an engine wants to know about a filter (a bitmap, a column) is made there, once, and not timed.
    """

    name: str
    client: Callable[[Scope], AbstractContextManager[Search]]


@dataclass(frozen=True, slots=True)
class Built:
    """``held``: bytes in memory, ``stored``: bytes on disk that searches read; None where it can't be told.

    ``efforts`` from least to most; ``own``: the one it takes when nobody states any, None when it has no opinion.
    """

    name: str
    build_seconds: float
    held: float | None
    stored: float | None
    efforts: tuple[Effort, ...]
    own: Effort | None = None


Maker = Callable[[Task], AbstractContextManager[Built]]


def in_process(name: str, search: Callable[[Scope], Search]) -> Effort:
    """An effort of a library that all clients share."""
    return Effort(name, lambda scope: nullcontext(search(scope)))


def padded(keys: Keys) -> Keys:
    """[q, n] as [q, K], -1 where there are fewer."""
    full = np.full((len(keys), K), -1, np.int64)
    full[:, : keys.shape[1]] = keys[:, :K]
    return full
