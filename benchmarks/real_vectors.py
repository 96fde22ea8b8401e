"""Image vectors of the shared sets, and more of them between neighbours: synthetic ones mislead every index."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.limits import Limits
from indexer.pipeline import Options, index
from indexer.sandbox import Sandbox
from indexer.workers import worker_count
from retrieval.gallery import Gallery
from retrieval.indexes.library import load_faiss
from retrieval.settings import Settings
from retrieval.types import UnitRows

QUERIES = 500  # held out of what is grown
_NEIGHBOURS = 10
_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class Measured:
    """``rows`` to search among, ``queries`` to ask: real images that are not among them nor were grown from."""

    rows: UnitRows
    queries: UnitRows


def embedded(folders: list[Path], encoder: str, slices: int = 64) -> UnitRows:
    """A row for every picture and slice below ``folders``, as indexing makes them; equal ones once."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home), encoder=encoder, max_slices=slices)
        workers, limits = worker_count(settings), Limits.of(settings)
        with Gallery.open(settings, create=True) as gallery, Sandbox(workers, limits) as sandbox:
            index(gallery, sandbox, folders, Options())
            keys = np.concatenate([keys for keys, _ in gallery.catalog.vectors(0)])
            found = [
                gallery.catalog.slices(keys[start : start + 256])[key][0]
                for start in range(0, len(keys), 256)
                for key in keys[start : start + 256].tolist()
            ]
    return np.unique(np.concatenate(found).astype(np.float32), axis=0)


def grown(real: UnitRows, count: int, seed: int = 0) -> Measured:
    """``count`` rows: the real ones but ``QUERIES``, and points between two neighbours of them."""
    rng = np.random.default_rng(seed)
    real = real[rng.permutation(len(real))]
    queries, base = real[:QUERIES], real[QUERIES:]
    if count <= len(base):
        return Measured(_unit(base[:count]), _unit(queries))
    exact = load_faiss().IndexFlatIP(base.shape[1])
    exact.add(base)
    _, near = exact.search(base, _NEIGHBOURS + 1)
    one = rng.integers(0, len(base), count - len(base))
    other = near[one, rng.integers(1, _NEIGHBOURS + 1, len(one))]
    between = rng.random((len(one), 1), dtype=np.float32)
    rows = np.empty((count, base.shape[1]), np.float32)
    rows[: len(base)] = base
    for start in range(0, len(one), _BLOCK):
        part = slice(start, start + _BLOCK)
        mixed = between[part] * base[one[part]] + (1 - between[part]) * base[other[part]]
        rows[len(base) + start : len(base) + start + len(mixed)] = mixed
    return Measured(_unit(rows[rng.permutation(count)]), _unit(queries))


def _unit(rows: UnitRows) -> UnitRows:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows, dtype=np.float32)
