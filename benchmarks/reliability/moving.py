"""Cases that come and go: batches drawn from a seed, contents that follow from a name and a version.

Whoever knows a seed knows every batch, so a writer needs to tell no more than how far it came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from retrieval.types import Case, CaseFile, CaseKind, EmbeddedCase, Embedding, FrameRef, Label, UnitRows

FINGERPRINT = "benchmark-000000000002"
VERSIONS = 8  # contents a case may have, one after the other
DELETING = 0.3  # share of batches that delete
LARGEST = 256  # cases of a batch


@dataclass(frozen=True, slots=True)
class Batch:
    """One transaction: cases put with the content of a version, or deleted. No name is in it twice."""

    puts: tuple[tuple[str, int], ...] = ()
    deletes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A case on file."""

    key: int
    version: int


def moving_names(count: int) -> list[str]:
    return [f"move{n:012d}" for n in range(count)]


def batch_of(seed: int, life: int, number: int, names: Sequence[str]) -> Batch:
    """The batch of that number in the life of one writer. Some puts are on file as they are, some deletes gone."""
    rng = np.random.default_rng([seed, life, number])
    count = int(rng.integers(1, min(LARGEST, len(names)) + 1))
    chosen = [names[n] for n in rng.choice(len(names), count, replace=False)]
    if rng.random() < DELETING:
        return Batch(deletes=tuple(chosen))
    versions = rng.integers(1, VERSIONS + 1, count).tolist()
    return Batch(puts=tuple(zip(chosen, versions, strict=True)))


def versions_after(versions: Mapping[str, int], batch: Batch) -> dict[str, int]:
    """By name, once the batch is on file."""
    return {name: n for name, n in (dict(versions) | dict(batch.puts)).items() if name not in batch.deletes}


def rows_of(name: str, version: int, dim: int) -> UnitRows:
    """float32 [1, dim]: of that content and of no other."""
    row: UnitRows = np.random.default_rng([*name.encode(), version]).standard_normal((1, dim)).astype(np.float32)
    row /= np.linalg.norm(row, axis=1, keepdims=True)
    return row


def content_of(name: str, version: int) -> str:
    return f"content {name} {version}"


def report_of(name: str, version: int) -> str:
    return f"The report of {name} as of version {version}."


def case_of(name: str, version: int, dim: int) -> EmbeddedCase:
    rows, content = rows_of(name, version, dim), content_of(name, version)
    case = Case(
        name,
        CaseKind.IMAGE,
        labels=(Label("version", str(version), float(version)),),
        report=report_of(name, version),
        content_sha256=content,
        pixel_sha256=f"pixels of {content}",
        frames=(FrameRef(0, 0),),
    )
    return EmbeddedCase(case, Embedding(rows[0], rows, (0,)), (CaseFile(content, 1000, b"sealed"),))


@cache
def digest_of(name: str, version: int, dim: int) -> bytes:
    """Of the bytes that the catalog should hold for that content: ``stored_digest``."""
    rows = rows_of(name, version, dim)
    return stored_digest(rows.astype("<f4").tobytes(), rows.astype("<f2").tobytes(), report_of(name, version))


def stored_digest(vector: bytes, slices: bytes, report: str) -> bytes:
    return hashlib.sha256(vector + slices + report.encode()).digest()
