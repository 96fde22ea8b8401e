"""Galleries on a circle: what a case is like is an angle, and what it has, or measures, is told by the angle alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.encoders.base import unit_rows
from retrieval.types import Case, CaseKind, EmbeddedCase, Embedding, Label, Query, UnitRows
from tests.adapter_cases import DIM

VALUES = ("calm", "mixed", "wild")


def angles(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 2 * np.pi, count)


def vectors(at: np.ndarray) -> UnitRows:
    rows = np.zeros((len(at), DIM))
    rows[:, 0], rows[:, 1] = np.cos(at), np.sin(at)
    return unit_rows(rows)


def posterior(at: np.ndarray) -> np.ndarray:
    """The true probability of each of ``VALUES`` at an angle, [n, 3]: a third of the circle favours each."""
    powers = np.exp(1.5 * np.cos(at[:, None] - np.arange(3) * 2 * np.pi / 3))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def drawn(at: np.ndarray, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [VALUES[rng.choice(3, p=p)] for p in posterior(at)]


def on_file(at: np.ndarray, labels: Sequence[Sequence[Label]], *, each: int = 1, first: int = 0) -> list[EmbeddedCase]:
    """One case an angle, ``each`` cases to a patient."""
    return [
        EmbeddedCase(
            Case(
                case_id=f"case-{n:05d}", kind=CaseKind.IMAGE, labels=tuple(said), patient_key=f"patient {n // each}",
                study_uid=f"1.2.{n}", content_sha256=f"content {n}", pixel_sha256=f"pixels {n}",
            ),
            Embedding(row, row[None], (0,)),
        )
        for n, (row, said) in enumerate(zip(vectors(at), labels, strict=True), start=first)
    ]  # fmt: skip


def asked(angle: float) -> Query:
    row = vectors(np.array([angle]))[0]
    return Query(Embedding(row, row[None], (0,)))


def unlike() -> Query:
    """At a right angle to all on file."""
    row = unit_rows(np.eye(DIM)[2:3])[0]
    return Query(Embedding(row, row[None], (0,)))
