"""Clients that ask and clients that write, over HTTP, at a steady pace; in a process of their own, as clients are."""

from __future__ import annotations

import http.client
import io
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.reliability.swap_answers import BEACON, PROBES, Answered, K, probe_id
from benchmarks.served import Client, similar_path

STILL_SECONDS = 1.0
BROKEN = (OSError, http.client.HTTPException, ValueError)  # refused, cut off, or no JSON


@dataclass(slots=True)
class Told:
    """What the clients saw. ``errors``: (when, what) of every reply that is not what was asked for.

    ``stood_still``: (from, to) in which this process was not run at all, as on a machine that was paused.
    """

    answers: list[Answered] = field(default_factory=list)
    errors: list[tuple[float, str]] = field(default_factory=list)
    stood_still: list[tuple[float, float]] = field(default_factory=list)
    written: int = 0  # uploads that were found by the other service and deleted there


@dataclass(frozen=True, slots=True)
class Crowd:
    """``period``: seconds from one question of a client to its next; a writer takes three of them for a round."""

    ports: tuple[int, ...]
    asking: int
    writing: int
    period: float
    seed: int


def run(crowd: Crowd, pipe: Connection) -> None:
    """Until something comes through the pipe, or it is closed; then what was seen is sent back."""
    stop, told = threading.Event(), Told()
    work: list[Callable[[], None]] = [
        *(lambda n=n: _ask(crowd, n, told, stop) for n in range(crowd.asking)),  # type: ignore[misc]
        *(lambda n=n: _write(crowd, n, told, stop) for n in range(crowd.writing)),  # type: ignore[misc]
    ]
    threads = [threading.Thread(target=each) for each in (*work, lambda: _watch(told, stop))]
    for thread in threads:
        thread.start()
    with suppress(EOFError, OSError):
        pipe.recv()
    stop.set()
    for thread in threads:
        thread.join()
    with suppress(OSError):
        pipe.send(told)


def _watch(told: Told, stop: threading.Event) -> None:
    last = time.monotonic()
    while not stop.wait(0.05):
        now = time.monotonic()
        if now - last > STILL_SECONDS:
            told.stood_still.append((last, now))
        last = now


def _ask(crowd: Crowd, number: int, told: Told, stop: threading.Event) -> None:
    rng = random.Random(f"{crowd.seed} asking {number}")
    with Client(crowd.ports[number % len(crowd.ports)]) as client:
        stop.wait(rng.random() * crowd.period)
        while not stop.is_set():
            probe, asked = rng.randrange(PROBES), time.monotonic()
            filters = {"filters": json.dumps({"source": BEACON})} if rng.random() < 0.5 else {}
            try:
                status, body = client.get(similar_path(probe_id(probe), k=K, **filters))
            except BROKEN as error:
                told.errors.append((asked, f"a search: {type(error).__name__} {error}"))
                stop.wait(crowd.period)
                continue
            answered = time.monotonic()
            if status == 200:
                told.answers.append(_answered(probe, asked, answered, body))
            else:
                told.errors.append((asked, f"a search: {status} {body.get('detail')}"))
            stop.wait(max(0.0, asked + crowd.period * rng.uniform(0.8, 1.2) - answered))


def _answered(probe: int, asked: float, answered: float, body: dict[str, Any]) -> Answered:
    hits = tuple((hit["case_id"], hit["similarity"], hit["matches"][0]["similarity"]) for hit in body["hits"])
    return Answered(probe, asked, answered, body["generation"], body["encoder"]["fingerprint"], hits)


def _write(crowd: Crowd, number: int, told: Told, stop: threading.Event) -> None:
    rng = random.Random(f"{crowd.seed} writing {number}")
    here, there = (crowd.ports[(number + n) % len(crowd.ports)] for n in range(2))
    with Client(here) as client, Client(there) as other:
        stop.wait(rng.random() * 3 * crowd.period)
        for n in itertools.count():
            if stop.is_set():
                return
            begun = time.monotonic()
            try:
                fault = _round(client, other, picture(crowd.seed, number, n))
            except BROKEN as error:
                fault = f"{type(error).__name__} {error}"
            if fault:
                told.errors.append((begun, f"a writer: {fault}"))
            else:
                told.written += 1
            stop.wait(max(0.0, begun + 3 * crowd.period - time.monotonic()))


def _round(client: Client, other: Client, content: bytes) -> str:
    """Upload a picture, find it at the other service, delete it there, miss it here; what went wrong, or ""."""
    status, added = client.upload("a.png", content)
    if status != 201:
        return f"upload {status} {added.get('detail')}"
    case_id = added["files"][0]["case_id"]
    steps: Sequence[tuple[Client, str, str, int]] = (
        (other, "GET", similar_path(case_id, k=3), 200),
        (client, "GET", f"/v1/cases/{case_id}", 200),
        (other, "DELETE", f"/v1/cases/{case_id}", 200),
        (client, "GET", f"/v1/cases/{case_id}", 404),
    )
    for who, method, path, expected in steps:
        status, body = who.ask(method, path)
        if status != expected:
            return f"{method} {status} instead of {expected}: {body[:300]!r}"
    return ""


def picture(seed: int, writer: int, n: int) -> bytes:
    """A PNG like no other."""
    from PIL import Image

    rough = np.random.default_rng([seed, writer, n]).integers(0, 256, (8, 8), dtype=np.uint8)
    packed = io.BytesIO()
    Image.fromarray(rough).resize((48, 48), Image.Resampling.BILINEAR).save(packed, "PNG")
    return packed.getvalue()
