"""What the catalog answers with, beside the nouns of ``retrieval.types``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from retrieval.types import Keys

Status = Literal["added", "unchanged", "updated", "conflict"]
ValueCounts = tuple[tuple[str, int], ...]  # the most frequent first, ties by value


@dataclass(frozen=True, slots=True)
class Binding:
    """The encoder a gallery belongs to. ``encoder`` is its spec, ``pooling`` how slices become one vector."""

    fingerprint: str
    encoder: str
    dim: int
    pooling: str
    card_json: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case of a commit.

    ``key`` is the key it is stored under now (on a conflict: that of the case that stays). ``duplicate_of`` is the
    oldest other case with the same pixels, or "". ``reason`` is a sentence when the status is "conflict", else "".
    """

    case_id: str
    status: Status
    key: int
    duplicate_of: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """One published index. ``state``: "live", "published" (kept, can be rolled back to) or "rolled_back"."""

    name: str
    backend: str
    fingerprint: str
    manifest_sha256: str
    last_key: int
    last_tombstone: int
    count: int
    created_at: str
    state: Literal["live", "published", "rolled_back"]
    adapter: str = ""  # SHA-256 of the metric head its vectors went through; "" for none
    report_json: str = ""  # how it compared with what was live before it; "" when that was not measured


@dataclass(frozen=True, slots=True)
class AdapterRow:
    """A metric head on file. ``report_json``: how it was learned and what it did to the test part."""

    name: str
    sha256: str
    label: str
    report_json: str
    created_at: str
    live: bool


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """One label name: how many cases carry it, how many distinct values there are, and the most frequent of them."""

    name: str
    cases: int
    distinct: int
    values: ValueCounts


@dataclass(frozen=True, slots=True)
class GalleryCounts:
    """What a gallery holds. Each list is cut at its most frequent entries; ``total`` is exact."""

    total: int
    kinds: ValueCounts
    modalities: ValueCounts
    body_parts: ValueCounts
    sources: ValueCounts
    labels: tuple[LabelCounts, ...]


class Labelled(NamedTuple):
    """The cases that carry a label, by ascending key. ``numbers`` has a case's first numeric value, or None."""

    keys: Keys
    patient_keys: list[str]
    values: list[tuple[str, ...]]
    numbers: list[float | None]
