"""How good and how fast one effort of a contender is: asked by one client, by many at once, and in one batch."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from benchmarks.search.contender import Built, Effort, Search
from benchmarks.search.oracle import Worst, recall
from benchmarks.search.scopes import Scope
from retrieval.types import UnitRows

ENOUGH = 0.99
CLIENTS = 16
FEW = 100  # queries by which an effort is chosen, and the least that are asked one by one
WITHIN = 200  # queries that are asked under a filter, which some plans take long for
_WARM = 8
_SEEN = 0.9995  # more effort than finds this much shows nothing new


@dataclass(frozen=True, slots=True)
class Questions:
    """``worst``: by scope. ``seconds``: how long one client, and then many, may ask at most."""

    queries: UnitRows
    scopes: tuple[Scope, ...]
    worst: tuple[Worst, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Line:
    """``first``: ms of the first query in this scope; ``median`` and ``tail`` (99th percentile) in ms of one client's
    queries after that; the rest are queries a second."""

    scope: int
    effort: str
    recall: float
    first: float
    median: float
    tail: float
    alone: float
    many: float
    batch: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A contender's ``lines``, one a scope, and its ``curve``: a line for each effort without a filter."""

    name: str
    build_seconds: float
    held: float | None
    stored: float | None
    lines: tuple[Line, ...]
    curve: tuple[Line, ...]


def measure(built: Built, rows: UnitRows, questions: Questions) -> Measured:
    """Without a filter every effort, then each scope at the contender's own effort or the least that is enough."""
    everything = questions.scopes[0]
    curve = []
    for effort in built.efforts:
        curve.append(line_of(effort, rows, questions, everything))
        if curve[-1].recall >= _SEEN:
            break
    lines = [line_of(built.own, rows, questions, everything) if built.own else enough(curve)]
    lines += [
        line_of(built.own or least_enough(built.efforts, rows, questions, scope), rows, questions, scope)
        for scope in questions.scopes[1:]
    ]
    return Measured(built.name, built.build_seconds, built.held, built.stored, tuple(lines), tuple(curve))


def enough(curve: Sequence[Line]) -> Line:
    """The first that finds enough, else the one that finds most."""
    return next((line for line in curve if line.recall >= ENOUGH), max(curve, key=lambda line: line.recall))


def least_enough(efforts: Sequence[Effort], rows: UnitRows, questions: Questions, scope: Scope) -> Effort:
    """The least effort that finds enough for the first few queries, else the most."""
    few = questions.queries[:FEW]
    for effort in efforts:
        with effort.client(scope) as search:
            if recall(search(few), rows, few, scope, questions.worst[scope.number][:FEW]) >= ENOUGH:
                return effort
    return efforts[-1]


def line_of(effort: Effort, rows: UnitRows, questions: Questions, scope: Scope) -> Line:
    queries = questions.queries if scope.allowed is None else questions.queries[:WITHIN]
    with effort.client(scope) as search:
        started = time.perf_counter()
        search(queries[:1])
        first = (time.perf_counter() - started) * 1e3
        search(queries[:_WARM])
        started = time.perf_counter()
        found = search(queries)
        batch = len(queries) / (time.perf_counter() - started)
        reached = recall(found, rows, queries, scope, questions.worst[scope.number][: len(queries)])
        each = one_by_one(search, queries, questions.seconds)
    many = at_once(effort, scope, queries, questions.seconds)
    return Line(
        scope.number,
        effort.name,
        reached,
        first,
        float(np.median(each)),
        float(np.percentile(each, 99)),
        1e3 / float(np.mean(each)),
        many,
        batch,
    )


def one_by_one(search: Search, queries: UnitRows, seconds: float) -> list[float]:
    """Milliseconds of each query, asked one after the other and by turns until time is up, at least ``FEW``."""
    for n in range(_WARM):
        search(queries[n % len(queries)][None])
    each: list[float] = []
    until = time.perf_counter() + seconds
    while len(each) < FEW or time.perf_counter() < until:
        n = len(each) % len(queries)
        started = time.perf_counter()
        search(queries[n : n + 1])
        each.append((time.perf_counter() - started) * 1e3)
    return each


def at_once(effort: Effort, scope: Scope, queries: UnitRows, seconds: float, clients: int = CLIENTS) -> float:
    """Queries a second that many clients get, each of which asks one at a time and waits for its answer."""
    turns = itertools.count()
    ready = threading.Barrier(clients)

    def ask() -> tuple[int, float, float]:
        try:
            with effort.client(scope) as search:
                search(queries[:1])
                ready.wait()
                return _asked(search, queries, turns, seconds)
        except BaseException:
            ready.abort()  # or the others would wait for this one
            raise

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask) for _ in range(clients)]
    errors = [error for error in (each.exception() for each in asking) if error]
    if errors:  # the one that made the others give up, before theirs
        raise min(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError))
    told = [each.result() for each in asking]
    first, last = min(started for _, started, _ in told), max(ended for _, _, ended in told)
    return sum(answered for answered, _, _ in told) / (last - first)


def _asked(search: Search, queries: UnitRows, turns: Iterator[int], seconds: float) -> tuple[int, float, float]:
    """How many were answered, when it began and when it ended."""
    answered, started = 0, time.perf_counter()
    while (now := time.perf_counter()) < started + seconds:
        n = next(turns) % len(queries)
        search(queries[n : n + 1])
        answered += 1
    return answered, started, now
