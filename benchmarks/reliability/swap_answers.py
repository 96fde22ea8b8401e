"""What the right answer is while a gallery changes and its index is swapped, and what a mixed one looks like.

Each question asks for the neighbours of a probe. Around every probe lie ``RANKS`` beacons; they are replaced, version
by version: a new version is added (one commit for all probes), the old one deleted (another). A search sees one state
of the gallery, so the beacons in its answer must be exactly those of one state that was true at some moment between
question and answer. And the vectors are searched now as they are, now through a metric head, which changes every
similarity: each generation is made for one of the two. An answer that names a generation must have that one's
fingerprint and similarities, in the hits and in their matching slices. Anything else is a mixture.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from retrieval.adapters.head import MetricHead
from retrieval.types import Attributes, Case, CaseKind, EmbeddedCase, Embedding

PROBES, RANKS = 8, 5
K = 2 * RANKS  # while both versions are there, all of both
NEAR = (0.70, 0.84)  # similarity of the best beacon, of even and of odd versions
STEP = 0.02
CLOSE = 2e-5  # float32 products beside float64 ones
CLOSE_SLICES = 4e-3  # slices are stored as float16
BEACON = "beacon"  # their source, to be filtered by

Vector = npt.NDArray[np.float32]
Versions = tuple[int, ...]


def probe_id(probe: int) -> str:
    return f"probe{probe:011d}"


def beacon_id(probe: int, version: int, rank: int) -> str:
    return f"beacon{version:05d}p{probe:02d}r{rank}"


def probe_vector(probe: int, dim: int) -> Vector:
    return _unit(np.random.default_rng([1, probe]).standard_normal(dim))


def beacon_vector(probe: int, version: int, rank: int, dim: int) -> Vector:
    """At the stated cosine to its probe, in a direction of its own."""
    near, towards = NEAR[version % 2] - STEP * rank, probe_vector(probe, dim).astype(np.float64)
    aside = np.random.default_rng([2, probe, version, rank]).standard_normal(dim)
    aside -= (aside @ towards) * towards
    return _unit(near * towards + np.sqrt(1 - near**2) * aside / np.linalg.norm(aside))


def beacons(version: int, dim: int) -> list[EmbeddedCase]:
    """One version around every probe."""
    return [
        case_of(beacon_id(probe, version, rank), beacon_vector(probe, version, rank, dim), BEACON)
        for probe in range(PROBES)
        for rank in range(RANKS)
    ]


def case_of(case_id: str, vector: Vector, source: str = "") -> EmbeddedCase:
    case = Case(
        case_id,
        CaseKind.IMAGE,
        Attributes(source=source),
        content_sha256=f"content {case_id}",
        pixel_sha256=f"pixels {case_id}",
    )
    return EmbeddedCase(case, Embedding(vector, vector[None, :], (0,)))


def _unit(vector: npt.NDArray[np.float64]) -> Vector:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def head_of(fingerprint: str, dim: int) -> MetricHead:
    """A map that keeps who is near but changes how near."""
    weight = np.eye(dim) + 0.35 * np.random.default_rng(3).standard_normal((dim, dim)) / np.sqrt(dim)
    bias = np.zeros(dim)
    return MetricHead("linear", fingerprint, {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)})


@dataclass(frozen=True, slots=True)
class Answered:
    """A question, when it was asked and answered (seconds of the monotonic clock), and what came back."""

    probe: int
    asked: float
    answered: float
    generation: str
    fingerprint: str
    hits: tuple[tuple[str, float, float], ...]  # id, similarity, that of its matching slices


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that became true between two times; which state or generation it is."""

    begun: float
    done: float
    value: object


@dataclass(slots=True)
class History:
    """What was done to the gallery, in order. ``heads``: the head of each generation, None for none."""

    states: list[Moment] = field(default_factory=list)  # of the beacons: which versions are there
    live: list[Moment] = field(default_factory=list)  # names of generations
    heads: dict[str, MetricHead | None] = field(default_factory=dict)


class Judge:
    """Compares answers with the history, by NumPy in float64."""

    def __init__(self, history: History, fingerprint: str, dim: int) -> None:
        self._history = history
        self._fingerprint = fingerprint
        self._dim = dim
        self._expected: dict[tuple[int, str, object], list[tuple[str, float]]] = {}

    def fault(self, answer: Answered) -> str:
        """What is wrong with an answer, or ""."""
        live = true_between(self._history.live, answer.asked, answer.answered)
        if answer.generation not in live:
            return f"generation '{answer.generation}', expected one of {live}"
        head = self._history.heads[answer.generation]
        fingerprint = head.fingerprint if head else self._fingerprint
        if answer.fingerprint != fingerprint:
            return f"generation {answer.generation} is of {fingerprint}, the answer says {answer.fingerprint}"
        if len(answer.hits) < RANKS:
            return f"{len(answer.hits)} hits"
        seen = [hit for hit in answer.hits if hit[0].startswith(BEACON) and f"p{answer.probe:02d}r" in hit[0]]
        states = true_between(self._history.states, answer.asked, answer.answered)
        wanted = [self._beacons(answer.probe, answer.generation, state) for state in states]
        if not any([each[0] for each in seen] == [case_id for case_id, _ in right] for right in wanted):
            return f"beacons {[each[0] for each in seen]}, expected those of one of the states {states}"
        right = dict(itertools.chain(*wanted))
        for case_id, similarity, by_slices in seen:
            if abs(similarity - right[case_id]) > CLOSE or abs(by_slices - right[case_id]) > CLOSE_SLICES:
                told = f"{similarity:.6f}, by slices {by_slices:.6f}"
                return f"{case_id} has {told}, in {answer.generation} it is {right[case_id]:.6f}"
        return ""

    def _beacons(self, probe: int, generation: str, state: object) -> list[tuple[str, float]]:
        """Ids and similarities, best first, of the versions of a state."""
        key = (probe, generation, state)
        if key not in self._expected:
            versions: Versions = state if isinstance(state, tuple) else ()
            made = [(version, rank) for version in versions for rank in range(RANKS)]
            ids = [beacon_id(probe, version, rank) for version, rank in made]
            rows = np.stack([beacon_vector(probe, version, rank, self._dim) for version, rank in made])
            sims = similarities(self._history.heads[generation], probe_vector(probe, self._dim), rows)
            self._expected[key] = sorted(zip(ids, sims, strict=True), key=lambda pair: -pair[1])
        return self._expected[key]


def similarities(head: MetricHead | None, probe: Vector, rows: npt.NDArray[np.float32]) -> list[float]:
    """Cosines to the probe, through the head, all in float64."""
    stacked = np.vstack([probe[None, :], rows]).astype(np.float64)
    if head is not None:
        stacked = stacked @ head.arrays["weight"].astype(np.float64) + head.arrays["bias"].astype(np.float64)
    stacked /= np.linalg.norm(stacked, axis=1, keepdims=True)
    return [float(each) for each in stacked[1:] @ stacked[0]]


def true_between(moments: Sequence[Moment], first: float, last: float) -> list[object]:
    """What may have been true at some time between these: each from when it was begun until the next one was done."""
    ends = [following.done for following in moments[1:]] + [float("inf")]
    return [moment.value for moment, end in zip(moments, ends, strict=True) if moment.begun <= last and end >= first]
