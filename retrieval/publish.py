"""From the vectors in SQL to a published generation, and back to the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from retrieval.catalog import Catalog
from retrieval.catalog.types import GenerationRow
from retrieval.errors import FingerprintMismatch, NotFoundError, UsageError
from retrieval.generations import check_generation, generations_folder, open_generation, publishing, sweep, write
from retrieval.heads import Heads
from retrieval.indexes import index_type, split_backend
from retrieval.indexes.base import VectorIndex
from retrieval.manifest import Facts, Manifest
from retrieval.replay import live_space, replay
from retrieval.space import Space
from retrieval.types import Keys, UnitRows

MIN_RECALL = 0.99
RECALL_AT = 10
_PROBES = 200

Progress = Callable[[int], None]


def publish(
    catalog: Catalog,
    home: Path,
    backend: str,
    *,
    keep_previous: bool = True,
    progress: Progress | None = None,
    adapter: str | None = None,
) -> Manifest:
    """Build an index of everything in SQL, check it and make it live. Searches go on meanwhile.

    ``backend``: ``exact``, ``faiss`` or with options ``faiss:IVF256,SQfp16,nprobe=32``. ``progress`` is told how many
    vectors have been read. Memory stays bounded by what the backend keeps (nothing for ``exact``, its codes for
    ``faiss``). ``keep_previous=False`` leaves nothing to roll back to, and so no vector deleted since on disk.

    ``adapter``: hash of the metric head on file to send the vectors through, "" for none, None for the one that is
    live: the head and the generation go live in one commit.

    Raises UsageError for an unknown backend, an empty gallery or an index that misses the recall bound; ConflictError
    when another process publishes; StorageFull. Whatever it raises, the live generation stays as it was.
    """
    name, options = split_backend(backend)
    kind, root = index_type(name), generations_folder(home)
    binding = catalog.binding()
    if binding is None:
        raise UsageError("This gallery has no cases yet, so there is no index to build: index some first.")
    with publishing(root):
        heads = catalog.heads()  # before the vectors: what is deleted while they are read is replayed later
        if adapter is not None:
            heads = replace(heads, adapter=adapter)
        stored = Space(binding.fingerprint, binding.dim)
        space = live_space(catalog, stored, heads)

        def fill(directory: Path) -> Facts:
            index = kind.build(directory, _read(catalog, stored, space, heads.last_key, progress), space.dim, options)
            _check_recall(index, space.place(catalog.sample(_PROBES)))
            return _facts(index, space, heads)

        manifest = write(root, fill)
        open_generation(root, manifest.name, manifest.sha256)  # what is on disk now, not what was meant
        catalog.publish_generation(
            manifest.name,
            manifest.sha256,
            heads.last_key,
            heads.last_tombstone,
            backend,
            manifest.facts.count,
            heads.adapter,
        )
        _forget(catalog, root, keep_previous)
    return manifest


def rollback(catalog: Catalog, home: Path) -> GenerationRow:
    """Make the previous generation live again, once it has been checked. What came since is replayed from SQL.

    Its metric head, or none, comes back with it.

    NotFoundError when there is none, CorruptIndex when it is damaged; then the live one stays.
    """
    root = generations_folder(home)
    with publishing(root):
        previous = _previous(catalog.generations())
        if previous is None:
            raise NotFoundError("There is no earlier generation to go back to: it was never published or was dropped.")
        manifest = check_generation(root, previous.name, previous.manifest_sha256)
        binding = catalog.binding()
        if binding is not None:
            head = catalog.head(previous.adapter) if previous.adapter else None
            space = Space(binding.fingerprint, binding.dim).adapted(head)
            if manifest.facts.fingerprint != space.fingerprint:
                fix = "Build a new generation with precedent rebuild."
                raise FingerprintMismatch(space.fingerprint, manifest.facts.fingerprint, fix)
        return catalog.rollback_generation()


def measure_recall(index: VectorIndex, queries: UnitRows, k: int = RECALL_AT) -> float:
    """Share of the k true neighbours, the query itself aside, that a search finds. Queries are stored vectors."""
    k = min(k + 1, len(index))
    if k < 2 or not len(queries):
        return 1.0
    _, exact = index.search(queries, k, index.keys())
    _, found = index.search(queries, k)
    # Similarities are exact whatever the backend, so equal vectors may stand in for one another.
    share = ((found >= exact[:, -1:]).sum(axis=1) - 1) / (k - 1)
    return float(share.mean())


def _check_recall(index: VectorIndex, probes: UnitRows) -> None:
    if index.exhaustive:
        return
    recall = measure_recall(index, probes)
    if recall < MIN_RECALL:
        raise UsageError(
            f"The index {index.name}:{index.options} finds {recall:.3f} of the true {RECALL_AT} nearest neighbours, at "
            f"least {MIN_RECALL} is required: raise nprobe, or use an index that goes through everything."
        )


def _read(
    catalog: Catalog, stored: Space, space: Space, upto: int, progress: Progress | None
) -> Iterator[tuple[Keys, UnitRows]]:
    done = 0
    for keys, vectors in replay(catalog, stored, space, 0, upto):
        yield keys, vectors
        done += len(keys)
        if progress:
            progress(done)


def _facts(index: VectorIndex, space: Space, heads: Heads) -> Facts:
    return Facts(
        backend=index.name,
        options=index.options,
        dim=index.dim,
        fingerprint=space.fingerprint,
        count=len(index),
        last_key=heads.last_key,
        last_tombstone=heads.last_tombstone,
    )


def _previous(rows: list[GenerationRow]) -> GenerationRow | None:
    """What a rollback goes to: the newest before the live one that was not itself rolled back from."""
    live = next((n for n, row in enumerate(rows) if row.state == "live"), 0)
    return next((row for row in reversed(rows[:live]) if row.state == "published"), None)


def _forget(catalog: Catalog, root: Path, keep_previous: bool) -> None:
    """Drop the rows first: a generation that can be rolled back to always has its directory."""
    rows = catalog.generations()
    previous = _previous(rows) if keep_previous else None
    kept = {row.name for row in rows if row.state == "live"} | ({previous.name} if previous else set())
    catalog.drop_generations([row.name for row in rows if row.name not in kept])
    sweep(root, kept)
