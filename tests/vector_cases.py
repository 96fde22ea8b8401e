"""Real catalogs filled with cases that are little more than their vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retrieval.catalog import Catalog
from retrieval.catalog.types import Binding
from retrieval.live import LiveIndex
from retrieval.types import Case, CaseKind, EmbeddedCase, Embedding, UnitRows

DIM = 16
FINGERPRINT = "classical-0123456789ab"


def unit_rows(count: int, seed: int = 0, dim: int = DIM) -> UnitRows:
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def open_catalog(home: Path) -> Catalog:
    """SQLite at its usual place in ``home``, bound."""
    catalog = Catalog.open(f"sqlite:///{home / 'catalog.sqlite3'}", create=True)
    catalog.bind(Binding(FINGERPRINT, "classical", DIM, "mean", "{}"))
    return catalog


def live_index(catalog: Catalog, home: Path) -> LiveIndex:
    """Caught up with the catalog."""
    live = LiveIndex(catalog, home, DIM, FINGERPRINT)
    live.refresh()
    return live


def commit_vectors(catalog: Catalog, vectors: UnitRows, first: int = 1) -> list[int]:
    """One case per vector, with ids counted from ``first``; their keys."""
    cases = [
        EmbeddedCase(
            Case(f"{n:016d}", CaseKind.IMAGE, content_sha256=f"{n:064x}", pixel_sha256=f"{n:064x}"),
            Embedding(vector, vector[None, :], (0,)),
        )
        for n, vector in enumerate(vectors, first)
    ]
    return [outcome.key for outcome in catalog.commit(cases, fingerprint=FINGERPRINT)]
