"""From the vectors in SQL to a published generation, and back to the one before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
from retrieval.shadow import Candidate, compare
from retrieval.shadow_figures import Gates, ShadowReport
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
    with publishing(generations_folder(home)):
        built = _build(catalog, home, backend, adapter, progress)
        _flip(catalog, home, built, keep_previous, "")
    return built.manifest


@dataclass(frozen=True, slots=True)
class Publication:
    """What became of a generation that was built and compared. ``refusal``: the gate that kept it from going live."""

    manifest: Manifest
    report: ShadowReport
    live: bool
    refusal: str = ""


def publish_compared(
    catalog: Catalog,
    home: Path,
    backend: str,
    *,
    gates: Gates | None = None,
    dry_run: bool = False,
    keep_previous: bool = True,
    progress: Progress | None = None,
    adapter: str | None = None,
) -> Publication:
    """As ``publish``, but the new generation is compared with the live one before it goes live, if the gates let it.

    A ``dry_run``, or one that is refused, leaves nothing behind. Raises as ``publish`` does.
    """
    with publishing(generations_folder(home)):
        built = _build(catalog, home, backend, adapter, progress)
        try:
            report = _compared(catalog, home, built, progress)
            refusal = gates.refusal(report) if gates else ""
            live = not (dry_run or refusal)
            if live:
                _flip(catalog, home, built, keep_previous, json.dumps(report.to_json(), sort_keys=True))
        finally:
            sweep(generations_folder(home), {row.name for row in catalog.generations()})
        return Publication(built.manifest, report, live, refusal)


@dataclass(frozen=True, slots=True)
class _Built:
    """A generation on disk that nothing names yet. ``heads``: the state it was built from."""

    manifest: Manifest
    backend: str
    heads: Heads


def _build(catalog: Catalog, home: Path, backend: str, adapter: str | None, progress: Progress | None) -> _Built:
    """To be called while ``publishing``."""
    name, options = split_backend(backend)
    kind, root = index_type(name), generations_folder(home)
    binding = catalog.binding()
    if binding is None:
        raise UsageError("This gallery has no cases yet, so there is no index to build: index some first.")
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
    return _Built(manifest, backend, heads)


def _compared(catalog: Catalog, home: Path, built: _Built, progress: Progress | None) -> ShadowReport:
    """With what is live, both at the state the new one was built from."""
    binding, live = catalog.binding(), next((row for row in catalog.generations() if row.state == "live"), None)
    if binding is None:
        raise UsageError("This gallery has no cases yet, so there is nothing to compare: index some first.")
    stored, count = Space(binding.fingerprint, binding.dim), built.manifest.facts.count
    name, sha256 = (live.name, live.manifest_sha256) if live else ("", "")
    old = replace(built.heads, generation=name, manifest_sha256=sha256, adapter=live.adapter if live else "")
    new = replace(built.heads, generation=built.manifest.name, manifest_sha256=built.manifest.sha256)
    return compare(
        Candidate(catalog, stored, old, live.backend if live else "exact"),
        Candidate(catalog, stored, new, built.backend),
        home,
        tick=(lambda: progress(count)) if progress else None,
    )


def _flip(catalog: Catalog, home: Path, built: _Built, keep_previous: bool, report_json: str) -> None:
    facts = built.manifest.facts
    catalog.publish_generation(
        built.manifest.name,
        built.manifest.sha256,
        facts.last_key,
        facts.last_tombstone,
        built.backend,
        facts.count,
        built.heads.adapter,
        report_json,
    )
    _forget(catalog, generations_folder(home), keep_previous)


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
