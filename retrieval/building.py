"""From the vectors in SQL to a generation on disk that was checked and that nothing names yet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from retrieval.catalog import Catalog
from retrieval.errors import UsageError
from retrieval.generations import open_generation, write
from retrieval.heads import Heads
from retrieval.indexes import index_type, split_backend
from retrieval.indexes.base import VectorIndex
from retrieval.indexes.choice import AUTO, chosen
from retrieval.indexes.needs import build_bytes
from retrieval.indexes.questions import displaced
from retrieval.manifest import Facts, Manifest
from retrieval.memory import check_memory
from retrieval.recall import RECALL_AT, measure_recall
from retrieval.replay import live_space, replay
from retrieval.space import Space
from retrieval.types import Keys, UnitRows

MIN_RECALL = 0.99
_PROBES = 200

Progress = Callable[[int], None]

_log = logging.getLogger(__name__)


class TooLittleFound(UsageError):
    """An index misses the recall bound."""


@dataclass(frozen=True, slots=True)
class Built:
    """A generation on disk that nothing names yet. ``heads``: the state it was built from, with its adapter.

    ``source`` reads the vectors it is made of, ``stored`` is their space.
    """

    manifest: Manifest
    backend: str
    heads: Heads
    source: Catalog
    stored: Space


def build(
    catalog: Catalog,
    root: Path,
    backend: str,
    adapter: str | None,
    progress: Progress | None,
    fingerprint: str = "",
) -> Built:
    """To be called while ``publishing``. ``fingerprint``: of another encoder's vectors, which no adapter goes with.

    ``auto`` takes ``exact`` where what it would take finds too little; of any other that is an error.
    """
    binding = catalog.binding()
    if binding is None:
        raise UsageError("This gallery has no cases yet, so there is no index to build: index some first.")
    source = catalog.by(fingerprint or binding.fingerprint)
    stored = space_of(source)
    heads = catalog.heads()  # before the vectors: what is deleted while they are read is replayed later
    if adapter is not None or fingerprint:
        heads = replace(heads, adapter=adapter or "")
    taken = chosen(backend, source.count(), stored.dim)
    try:
        return _built(root, taken, source, stored, heads, progress)
    except TooLittleFound as error:
        if split_backend(backend)[0] != AUTO:
            raise
        _log.warning("%s Every vector will be scored instead.", error)
        return _built(root, "exact", source, stored, heads, progress)


def _built(root: Path, backend: str, source: Catalog, stored: Space, heads: Heads, progress: Progress | None) -> Built:
    name, options = split_backend(backend)
    count = source.count()
    check_memory(build_bytes(name, options, count, stored.dim), f"An index of {count:,} vectors by {name}")
    kind, space = index_type(name), live_space(source, stored, heads)

    def fill(directory: Path) -> Facts:
        index = kind.build(directory, _read(source, stored, space, heads.last_key, progress), space.dim, options)
        recall = _checked_recall(index, displaced(space.place(source.sample(_PROBES))))
        return _facts(index, space, heads, recall)

    manifest = write(root, fill)
    open_generation(root, manifest.name, manifest.sha256)  # what is on disk now, not what was meant
    return Built(manifest, backend, heads, source, stored)


def space_of(source: Catalog) -> Space:
    binding = source.embedded_with()
    return Space(binding.fingerprint, binding.dim)


def _checked_recall(index: VectorIndex, probes: UnitRows) -> float:
    if index.exhaustive:
        return 1.0
    recall = measure_recall(index, probes)
    if recall < MIN_RECALL:
        raise TooLittleFound(
            f"The index {index.name}:{index.options} finds {recall:.3f} of the true {RECALL_AT} nearest neighbours, at "
            f"least {MIN_RECALL} is required: raise nprobe (or probes and take of fastscan), or use an index that goes "
            "through everything."
        )
    return recall


def _read(
    catalog: Catalog, stored: Space, space: Space, upto: int, progress: Progress | None
) -> Iterator[tuple[Keys, UnitRows]]:
    done = 0
    for keys, vectors in replay(catalog, stored, space, 0, upto):
        yield keys, vectors
        done += len(keys)
        if progress:
            progress(done)


def _facts(index: VectorIndex, space: Space, heads: Heads, recall: float) -> Facts:
    return Facts(
        backend=index.name,
        options=index.options,
        dim=index.dim,
        fingerprint=space.fingerprint,
        count=len(index),
        last_key=heads.last_key,
        last_tombstone=heads.last_tombstone,
        recall=recall,
    )
