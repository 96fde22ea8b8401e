"""Clients of two services on one store: readers that know what is there, writers that look for what they wrote.

A picture that is on file is no answer to itself, so what is asked for is a picture with one pixel a shade off.
"""

from __future__ import annotations

import http.client
import io
import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image as Picture

from benchmarks.served import Client, similar_path

K = 5
KEPT = 20  # cases of a writer that are on file at a time
RIM = "concurrency-boundary"
BROKEN = (OSError, http.client.HTTPException, ValueError)  # refused, cut off, or no JSON


class Wrong(Exception):
    """A reply that is not the one to be expected."""


@dataclass(slots=True)
class Told:
    """What the clients saw. ``done`` counts reads, writes and looks at what was just written; ``faults``: sentences.

    ``deleted``: when the deletion of a case was acknowledged. ``kept``: what the writers left on file.
    """

    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    deleted: dict[str, float] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        with self.lock:
            self.done[what] += 1


@dataclass(frozen=True, slots=True)
class Door:
    """A service, called upon with a connection for each request: it closes those that are left idle."""

    port: int

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        with Client(self.port) as client:
            return client.ask(method, path, body, headers)

    def upload(self, name: str, content: bytes) -> tuple[int, Any]:
        with Client(self.port) as client:
            return client.upload(name, content)


@dataclass(frozen=True, slots=True)
class Crowd:
    """``still``: ids of the cases that nobody touches, by the number of their picture."""

    ports: tuple[int, int]
    still: Sequence[str]
    seed: int
    readers: int = 8
    writers: int = 2


def picture(number: int, *, shade: int = 0) -> bytes:
    """A PNG file of soft patches, no two alike; ``shade`` is added to one of its pixels."""
    rough = np.random.default_rng(number).integers(0, 250, (8, 8), dtype=np.uint8)
    pixels = np.asarray(Picture.fromarray(rough).resize((48, 48), Picture.Resampling.BILINEAR)).copy()
    pixels[7, 11] += shade
    packed = io.BytesIO()
    Picture.fromarray(pixels).save(packed, "PNG")
    return packed.getvalue()


def together(crowd: Crowd, stop: threading.Event, told: Told) -> list[threading.Thread]:
    """All clients at work, until ``stop``."""
    threads = [threading.Thread(target=_reader, args=(crowd, n, stop, told)) for n in range(crowd.readers)]
    threads += [threading.Thread(target=_writer, args=(crowd, n, stop, told)) for n in range(crowd.writers)]
    for thread in threads:
        thread.start()
    return threads


def _reader(crowd: Crowd, number: int, stop: threading.Event, told: Told) -> None:
    """Ask the one or the other service for what is known."""
    rng = random.Random(f"{crowd.seed} reader {number}")
    doors = [Door(port) for port in crowd.ports]
    asking: list[Callable[[Door, int], None]] = [
        lambda client, n: _ask_by_file(client, n, crowd.still[n], told),
        lambda client, n: _ask_by_id(client, crowd.still[n], told),
        lambda client, n: _ask_by_id(client, crowd.still[n], told),
        lambda client, n: _look(client, n, crowd.still[n]),
    ]
    while not stop.is_set():
        ask, client = rng.choice(asking), rng.choice(doors)
        _noting(told, "reads", lambda: ask(client, rng.randrange(len(crowd.still))))  # noqa: B023 - called at once


def _ask_by_file(client: Door, number: int, case_id: str, told: Told) -> None:
    asked = time.monotonic()
    hits = _hits(_search(client, number), told, asked)
    if hits[0] != case_id:
        raise Wrong(f"the case of picture {number} is not the first hit of its own picture")


def _ask_by_id(client: Door, case_id: str, told: Told) -> None:
    asked = time.monotonic()
    hits = _hits(_checked(client.ask("GET", similar_path(case_id, k=K))), told, asked)
    if case_id in hits:
        raise Wrong("a case is its own neighbour")


def _look(client: Door, number: int, case_id: str) -> None:
    if _checked(client.ask("GET", f"/v1/cases/{case_id}"))["case_id"] != case_id:
        raise Wrong(f"another case than the one of picture {number}")


def _hits(answer: Any, told: Told, asked: float) -> list[str]:
    """Ids of the hits: as many as wanted, in order, nothing that was gone before it was asked for."""
    hits = [hit["case_id"] for hit in answer["hits"]]
    similarities = [hit["similarity"] for hit in answer["hits"]]
    if len(set(hits)) != K or similarities != sorted(similarities, reverse=True):
        raise Wrong(f"{len(set(hits))} hits instead of {K}, or out of order")
    if ghosts := [case_id for case_id in hits if told.deleted.get(case_id, asked) < asked]:
        raise Wrong(f"{len(ghosts)} hits were deleted before")
    return hits


def _writer(crowd: Crowd, number: int, stop: threading.Event, told: Told) -> None:
    """Write at the one service and look at the other, and at the first."""
    rng = random.Random(f"{crowd.seed} writer {number}")
    mine: deque[tuple[str, int]] = deque()
    doors = [Door(port) for port in crowd.ports]
    for n in range(1_000_000):
        if stop.is_set():
            break
        here, there = rng.sample(doors, 2)
        new = 10**9 * (crowd.seed + 1) + 10**7 * number + n
        _noting(told, "writes", lambda: mine.append((_add(here, there, new, told), new)))  # noqa: B023
        if mine:
            _noting(told, "writes", lambda: _revise(here, there, rng.choice(mine)[0], f"note {n}", told))  # noqa: B023
        while len(mine) > KEPT:
            _noting(told, "writes", lambda: _delete(here, there, *mine.popleft(), told))  # noqa: B023
    with told.lock:
        told.kept |= {case_id for case_id, _ in mine}


def _add(here: Door, there: Door, number: int, told: Told) -> str:
    """The id of a new case, once both services have it and find it."""
    added = _checked(here.upload("a.png", picture(number)), 201)
    case_id = str(added["files"][0]["case_id"])
    for client in (there, here):
        _checked(client.ask("GET", f"/v1/cases/{case_id}"))
        asked = time.monotonic()
        if _hits(_search(client, number), told, asked)[0] != case_id:
            raise Wrong("a new case is not found by its own picture")
        told.count("looks")
    return case_id


def _revise(here: Door, there: Door, case_id: str, report: str, told: Told) -> None:
    body = json.dumps({"report": report}).encode()
    _checked(here.ask("PATCH", f"/v1/cases/{case_id}", body, {"Content-Type": "application/json"}))
    for client in (there, here):
        if _checked(client.ask("GET", f"/v1/cases/{case_id}"))["report"] != report:
            raise Wrong("a report is not as it was just written")
        told.count("looks")


def _delete(here: Door, there: Door, case_id: str, number: int, told: Told) -> None:
    _checked(here.ask("DELETE", f"/v1/cases/{case_id}"))
    told.deleted[case_id] = time.monotonic()
    for client in (there, here):
        _checked(client.ask("GET", f"/v1/cases/{case_id}"), 404)
        asked = time.monotonic()
        _hits(_search(client, number), told, asked)
        told.count("looks")


def _search(client: Door, number: int) -> Any:
    fields = {"k": str(K), "same_patient": "include", "group": "none"}
    parts = [
        f'--{RIM}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    ]
    head = f'--{RIM}\r\nContent-Disposition: form-data; name="files"; filename="q.png"\r\n\r\n'
    body = "".join(parts).encode() + head.encode() + picture(number, shade=1) + f"\r\n--{RIM}--\r\n".encode()
    media = {"Content-Type": f"multipart/form-data; boundary={RIM}"}
    return _checked(client.ask("POST", "/v1/search", body, media))


def _checked(reply: tuple[int, Any], expected: int = 200) -> Any:
    """The JSON of a reply that has the expected status."""
    status, body = reply
    if status != expected:
        raise Wrong(f"{status} instead of {expected}: {str(body)[:300]}")
    return json.loads(body) if isinstance(body, bytes) else body


def _noting(told: Told, what: str, action: Callable[[], object]) -> None:
    try:
        action()
    except (Wrong, *BROKEN) as error:
        with told.lock:
            told.faults.append(f"{what}: {type(error).__name__}: {error}")
    told.count(what)
