"""A process that is going to be killed: it opens a gallery as a restarted service would, then writes and swaps.

One thread writes batch after batch, another publishes and rolls back generations; each step is told through a pipe as
soon as it is acknowledged, and not before.
"""

from __future__ import annotations

import hashlib
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NoReturn

import numpy as np

from benchmarks.reliability.moving import FINGERPRINT, batch_of, case_of, rows_of
from benchmarks.reliability.sessions import Place
from retrieval.catalog import Catalog
from retrieval.errors import NotFoundError
from retrieval.live import LiveIndex
from retrieval.publish import publish, rollback
from retrieval.types import Keys

SHOWN = 5  # hits of a probe that are told
SWAPS = ("exact", "exact", "faiss:SQfp16", "rollback")


@dataclass(frozen=True, slots=True)
class Life:
    """What one worker is to do; its batches and swaps follow from ``seed`` and ``number``."""

    place: Place
    dim: int
    seed: int
    number: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """The gallery answers, ``seconds`` since the worker began to open it, of which ``cpu`` on a core.

    ``damaged``: what the index says of itself. ``held_up``: somebody had stopped this process for a while.
    """

    seconds: float
    cpu: float
    damaged: str
    held_up: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What the index holds: a digest of its live keys, how many, how many of them twice; and the hits of the probes."""

    keys_sha256: str
    count: int
    twice: int
    hits: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True)
class Wrote:
    """Batch ``number`` is acknowledged; the keys of its puts, in order."""

    number: int
    keys: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Swapping:
    """From now on the live generation may be another."""


@dataclass(frozen=True, slots=True)
class Swapped:
    """A generation is live, as was acknowledged; "" when there was none to go back to."""

    generation: str


@dataclass(frozen=True, slots=True)
class Failed:
    """An error where there should be none."""

    sentence: str


Told = Ready | Seen | Wrote | Swapping | Swapped | Failed
Tell = Callable[[Told], None]


def work(life: Life, pipe: Connection) -> None:
    """Open, tell ``Ready``; tell what is ``Seen`` for the probes that are sent; then write and swap until killed."""
    held_up = threading.Event()
    signal.signal(signal.SIGCONT, lambda *_: held_up.set())
    started, cpu = time.perf_counter(), time.process_time()
    with Catalog.open(life.place.url) as catalog:
        live = LiveIndex(catalog, life.place.home, life.dim, FINGERPRINT)
        live.refresh()
        live.search(rows_of("anything", 1, life.dim), 10)
        seconds = time.perf_counter() - started
        pipe.send(Ready(seconds, time.process_time() - cpu, live.damaged, held_up.is_set()))
        pipe.send(seen(live, pipe.recv(), life.dim))
        pipe.recv()
        told = threading.Lock()

        def tell(message: Told) -> None:
            with told:
                pipe.send(message)

        threading.Thread(target=_telling, args=(tell, lambda: _swap(catalog, life, tell)), daemon=True).start()
        _telling(tell, lambda: _write(catalog, life, tell))


def seen(live: LiveIndex, probes: Sequence[tuple[str, int]], dim: int) -> Seen:
    """``probes``: names and versions whose vectors are searched for."""
    snapshot = live.refresh()
    keys = snapshot.keys()
    hits = []
    for name, version in probes:
        found, similarities, _ = snapshot.search(rows_of(name, version, dim), SHOWN)
        hits.append((tuple(found[0].tolist()), tuple(similarities[0].tolist())))
    twice = len(keys) - len(np.unique(keys))
    return Seen(digest_of_keys(keys), len(keys), twice, tuple(hits))


def digest_of_keys(keys: Keys) -> str:
    return hashlib.sha256(np.ascontiguousarray(keys, dtype=np.int64).tobytes()).hexdigest()


def _telling(tell: Tell, action: Callable[[], NoReturn]) -> None:
    try:
        action()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is to be counted
        tell(Failed(f"{type(error).__name__}: {error}"))


def _write(catalog: Catalog, life: Life, tell: Tell) -> NoReturn:
    number = 0
    while True:
        number += 1
        batch = batch_of(life.seed, life.number, number, life.names)
        keys: tuple[int, ...] = ()
        if batch.puts:
            cases = [case_of(name, version, life.dim) for name, version in batch.puts]
            outcomes = catalog.commit(cases, fingerprint=FINGERPRINT, replace=True)
            keys = tuple(outcome.key for outcome in outcomes)
        else:
            catalog.delete(batch.deletes)
        tell(Wrote(number, keys))


def _swap(catalog: Catalog, life: Life, tell: Tell) -> NoReturn:
    rng, home = np.random.default_rng([life.seed, life.number]), life.place.home
    while True:
        kind, keep_previous = str(rng.choice(SWAPS)), bool(rng.random() < 0.8)
        tell(Swapping())
        try:
            if kind == "rollback":
                name = rollback(catalog, home).name
            else:
                name = publish(catalog, home, kind, keep_previous=keep_previous).name
        except NotFoundError:
            name = ""
        tell(Swapped(name))
