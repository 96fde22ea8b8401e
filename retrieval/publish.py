"""From the vectors in SQL to a published generation, and back to the one before."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from retrieval.building import Built, Progress, build, space_of
from retrieval.catalog import Catalog
from retrieval.catalog.types import GenerationRow
from retrieval.errors import FingerprintMismatch, NotFoundError, StoreError, Unfinished, UsageError
from retrieval.generations import (
    check_generation,
    embedding_anew,
    generations_folder,
    open_generation,
    publishing,
    sweep,
)
from retrieval.indexes.outside import promote
from retrieval.manifest import Manifest
from retrieval.memory import telling_of_memory
from retrieval.shadow import Candidate, compare
from retrieval.shadow_figures import Gates, ShadowReport
from retrieval.types import Keys

NO_MEMORY = "The index can't be built and compared; the live one is untouched"
_CATCH_UPS = 100

_log = logging.getLogger(__name__)


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

    ``backend``: ``auto``, ``exact``, or with options as ``faiss:IVF256,SQfp16,nprobe=32``. ``progress`` is told how
    many vectors have been read. Memory stays bounded by what the backend keeps (nothing for ``exact``, its codes for
    ``faiss``). ``keep_previous=False`` leaves nothing to roll back to, and so no vector deleted since on disk.

    ``adapter``: hash of the metric head on file to send the vectors through, "" for none, None for the one that is
    live: the head and the generation go live in one commit.

    Raises UsageError for an unknown backend, an empty gallery or an index that misses the recall bound; ConflictError
    when another process publishes; StorageFull; OutOfMemory, most often before anything is begun. Whatever it raises,
    the live generation stays as it was; only with ``keep_previous=False`` a StoreError may also mean that the new one
    is live and an earlier one not yet forgotten.
    """
    root = generations_folder(home)
    with publishing(root), telling_of_memory(NO_MEMORY):
        _sweep(catalog, root)  # rebuilds that were killed again and again must not fill the disk
        built = build(catalog, root, backend, adapter, progress)
        _flip(catalog, root, built, "")
        _forget(catalog, root, keep_previous)
    return built.manifest


@dataclass(frozen=True, slots=True)
class Takeover:
    """Another encoder, filled up beside the gallery's, that takes its place along with the generation made of it.

    ``catch_up`` embeds what has come since it was last called. ``dropping``: keys of cases it can have no vector of,
    which are deleted then.
    """

    fingerprint: str
    dropping: Callable[[], Keys]
    catch_up: Callable[[], None]


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
    takeover: Takeover | None = None,
) -> Publication:
    """As ``publish``, but the new generation is compared with the live one before it goes live, if the gates let it.

    A ``dry_run``, or one that is refused, leaves nothing behind. With a ``takeover`` it is made of the vectors of
    another encoder, which becomes the gallery's in the commit that makes it live. Raises as ``publish`` does.
    """
    root = generations_folder(home)
    with publishing(root), telling_of_memory(NO_MEMORY):
        _sweep(catalog, root)
        built = build(catalog, root, backend, adapter, progress, takeover.fingerprint if takeover else "")
        try:
            report = _compared(catalog, home, built, progress)
            refusal = gates.refusal(report) if gates else ""
            live = not (dry_run or refusal)
            if live:
                report_json = json.dumps(report.to_json(), sort_keys=True)
                if takeover:
                    if not catalog.heads().generation:  # or there were nothing to go back to
                        _flip(catalog, root, build(catalog, root, "exact", None, None), "")
                    _take_over(catalog, root, built, report_json, takeover)
                else:
                    _flip(catalog, root, built, report_json)
        except BaseException:
            _sweep(catalog, root)
            raise
        if live:
            _forget(catalog, root, keep_previous)
        else:
            _sweep(catalog, root)
        return Publication(built.manifest, report, live, refusal)


def _compared(catalog: Catalog, home: Path, built: Built, progress: Progress | None) -> ShadowReport:
    """With what is live, both at the state the new one was built from."""
    binding, live = catalog.binding(), next((row for row in catalog.generations() if row.state == "live"), None)
    if binding is None:
        raise UsageError("This gallery has no cases yet, so there is nothing to compare: index some first.")
    source, count = catalog.by(binding.fingerprint), built.manifest.facts.count
    name, sha256 = (live.name, live.manifest_sha256) if live else ("", "")
    at = replace(built.heads, encoder="")
    old = replace(at, generation=name, manifest_sha256=sha256, adapter=live.adapter if live else "")
    new = replace(at, generation=built.manifest.name, manifest_sha256=built.manifest.sha256)
    return compare(
        Candidate(source, space_of(source), old, live.backend if live else "exact"),
        Candidate(built.source, built.stored, new, built.backend),
        home,
        tick=(lambda: progress(count)) if progress else None,
    )


def _flip(catalog: Catalog, root: Path, built: Built, report_json: str, dropping: Keys | None = None) -> None:
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
        built.stored.fingerprint,
        dropping,
    )
    promote(root / built.manifest.name)


def _take_over(catalog: Catalog, root: Path, built: Built, report_json: str, takeover: Takeover) -> None:
    """Cases keep coming while the last of them are embedded: tried until none has come in between."""
    for left in reversed(range(_CATCH_UPS)):
        takeover.catch_up()
        try:
            _flip(catalog, root, built, report_json, takeover.dropping())
        except Unfinished:
            if not left:
                raise
        else:
            return


def rollback(catalog: Catalog, home: Path) -> GenerationRow:
    """Make the previous generation live again, once it has been checked. What came since is replayed from SQL.

    Its metric head, or none, comes back with it, and its encoder, where the gallery was embedded anew since.

    NotFoundError when there is none, CorruptIndex when it is damaged, ConflictError when its encoder has no vector of
    cases that came since; then the live one stays.
    """
    root = generations_folder(home)
    with publishing(root):
        previous = _previous(catalog.generations())
        if previous is None:
            raise NotFoundError("There is no earlier generation to go back to: it was never published or was dropped.")
        manifest, _ = open_generation(root, previous.name, previous.manifest_sha256)
        stored = space_of(catalog.by(previous.fingerprint))
        space = stored.adapted(catalog.head(previous.adapter) if previous.adapter else None)
        if manifest.facts.fingerprint != space.fingerprint:
            fix = "Build a new generation with precedent rebuild."
            raise FingerprintMismatch(space.fingerprint, manifest.facts.fingerprint, fix)
        row = catalog.rollback_generation()
        promote(root / row.name)
        return row


def discard(catalog: Catalog, home: Path) -> None:
    """Drop all vectors by other encoders than the gallery's, with the generations made of them.

    Those are of an unfinished rebuild, or kept to roll back to. ConflictError while another process rebuilds.
    """
    root = generations_folder(home)
    with embedding_anew(root), publishing(root):
        catalog.discard_others()
        sweep(root, {row.name for row in catalog.generations()})


def _previous(rows: list[GenerationRow]) -> GenerationRow | None:
    """What a rollback goes to: the newest before the live one that was not itself rolled back from."""
    live = next((n for n, row in enumerate(rows) if row.state == "live"), 0)
    return next((row for row in reversed(rows[:live]) if row.state == "published"), None)


def _sound_previous(root: Path, rows: list[GenerationRow]) -> GenerationRow | None:
    """As ``_previous``, but for one that is damaged: an index that took its place must not lose the one before it."""
    while previous := _previous(rows):
        try:
            check_generation(root, previous.name, previous.manifest_sha256)
        except StoreError:
            rows = [row for row in rows if row is not previous]
        else:
            return previous
    return None


def _forget(catalog: Catalog, root: Path, keep_previous: bool) -> None:
    """What is left to be done when the new generation is live. To fail here must not look as if it were not."""
    try:
        _drop_earlier(catalog, root, keep_previous)
    except (StoreError, MemoryError) as error:
        if not keep_previous:
            raise
        _log.warning("The new index is live; earlier ones will be forgotten at the next rebuild. %s", error)


def _sweep(catalog: Catalog, root: Path) -> None:
    """Remove what was built in vain, here or by a process that was killed, as far as that is possible now."""
    try:
        sweep(root, {row.name for row in catalog.generations()})
    except StoreError as error:
        _log.warning("What was built will be removed at the next rebuild. %s", error)


def _drop_earlier(catalog: Catalog, root: Path, keep_previous: bool) -> None:
    """Drop the rows first: a generation that can be rolled back to always has its directory."""
    rows = catalog.generations()
    previous = _sound_previous(root, rows) if keep_previous else None
    kept = {row.name for row in rows if row.state == "live"} | ({previous.name} if previous else set())
    catalog.drop_generations([row.name for row in rows if row.name not in kept])
    sweep(root, kept)
    catalog.purge()
