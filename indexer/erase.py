"""Erasing cases: deleted, and their bytes in no live file any more, with a receipt that says so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.intake import delete_cases, sweep_kept
from indexer.keeping import KeptFolder
from indexer.originals import KEPT
from retrieval.building import Progress
from retrieval.database import now
from retrieval.erasure import Compacted, TableRows, check_alone, compact, rows_of
from retrieval.errors import ConflictError, NotFoundError, PrecedentError, StoreError
from retrieval.gallery import Gallery
from retrieval.manifest import FileFact
from retrieval.storage import storing
from retrieval.types import Case
from retrieval.verify.repair import QUARANTINE

BACKUPS = "Backups made before hold what was erased: remove them, or erase again after restoring one."
ORIGINALS = "The files that cases were indexed from are not touched."
LOG = (
    "The server's write-ahead log, replicas and archives hold what was erased until the server writes over them: that "
    "is for the administrator of the server."
)
SAMPLES = (
    "The samples of the server's planner (pg_statistic) may hold some of what was erased: the role in the database URL "
    "does not own the database and may not rewrite them. Let its owner run VACUUM (FULL) pg_statistic."
)
SERVER = "The server where the index is kept frees the space of the earlier one in its own time."
UPLOADS = "Uploads were going on: what one that was cut off may have left is removed by precedent verify --repair."
HEADS = "Metric heads that were learned with these cases stay: learn them anew with precedent adapt."
FOREIGN = "Files in quarantine/ are not ours to read: look at them."


@dataclass(frozen=True, slots=True)
class ErasedCase:
    """What may be said of a case that is gone: nothing by which a patient is known."""

    case_id: str
    key: int
    content_sha256: str  # of the files it was made of: who has them can tell that they were meant


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased, when, and what was rewritten for it. File names are relative to the data directory."""

    erased_at: str  # ISO 8601, UTC
    cases: tuple[ErasedCase, ...]
    not_on_file: tuple[str, ...]
    rows: tuple[TableRows, ...]  # of these cases, before
    removed: tuple[FileFact, ...]  # kept uploads, set-aside facts, earlier index files
    written: tuple[FileFact, ...]  # the new index
    generation: str
    manifest_sha256: str
    database: str  # where it is, without a password
    database_bytes_before: int
    database_bytes_after: int
    last_tombstone: int  # up to this one, nothing that was deleted is in a live file
    beyond: tuple[str, ...]  # what no command of ours can reach


def erase(gallery: Gallery, case_ids: Sequence[str], *, progress: Progress | None = None) -> Receipt:
    """Delete cases and compact; with no ids, only compact, for what was deleted before.

    NotFoundError when ids are given and none is on file. StoreError when the cases are deleted but could not be
    compacted away; the same without ids then finishes it.
    """
    home = gallery.settings.home
    check_alone(home)
    found, missing = on_file(gallery, case_ids)
    if case_ids and not found:
        raise NotFoundError(f"None of these cases is on file: {', '.join(missing[:5])}. Nothing was changed.")
    rows = rows_of(gallery.catalog, np.array([case.key for case in found], np.int64))
    removed = _removed_files(gallery, found)
    delete_cases(gallery, [case.case_id for case in found])
    try:
        with storing("What was set aside of the cases can't be removed"):
            for case in found:
                _set_aside(home, case.case_id).unlink(missing_ok=True)
        swept = _swept(gallery)
        done = compact(gallery.catalog, home, progress=progress)
    except PrecedentError as error:
        raise StoreError(
            f"{len(found)} cases are deleted, and no answer shows them, but their bytes may still be in files. {error} "
            "Then run precedent erase --deleted."
        ) from error
    return _receipt(gallery, found, missing, rows, removed, done, swept)


def on_file(gallery: Gallery, case_ids: Sequence[str]) -> tuple[list[Case], list[str]]:
    """The cases of those ids that are on file, and the ids of which none is."""
    found, missing = [], []
    for case_id in dict.fromkeys(case_ids):
        try:
            found.append(gallery.catalog.case(case_id))
        except NotFoundError:
            missing.append(case_id)
    return found, missing


def _removed_files(gallery: Gallery, found: Iterable[Case]) -> list[FileFact]:
    """The files of these cases in the data directory, hashed while they are there."""
    kept, home = KeptFolder(gallery), gallery.settings.home
    names = [f"{KEPT}/{name}" for case in found for name in sorted(kept.names_of(case.case_id))]
    names += [_set_aside(home, case.case_id).relative_to(home).as_posix() for case in found]
    facts = []
    with storing("A file of the cases can't be read"):
        for name in names:
            if (home / name).is_file():
                with (home / name).open("rb") as file:
                    facts.append(
                        FileFact(name, (home / name).stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
                    )
    return facts


def _set_aside(home: Path, case_id: str) -> Path:
    """Where a repair puts what is known of a case without a usable embedding."""
    return home / QUARANTINE / f"case-{case_id}.json"


def _swept(gallery: Gallery) -> bool:
    """Remove kept files that no case refers to; whether that could be done now."""
    try:
        sweep_kept(gallery)
    except ConflictError:
        return False
    return True


def _receipt(
    gallery: Gallery,
    found: Sequence[Case],
    missing: Iterable[str],
    rows: tuple[TableRows, ...],
    removed: Sequence[FileFact],
    done: Compacted,
    swept: bool,
) -> Receipt:
    generation = done.generation
    database = gallery.catalog.database
    foreign = gallery.settings.home / QUARANTINE
    beyond = [
        BACKUPS,
        ORIGINALS,
        *([] if database.is_sqlite else [LOG]),
        *([] if database.owned else [SAMPLES]),
        *([SERVER] if generation and generation.facts.backend == "milvus" else []),
        *([HEADS] if gallery.catalog.adapters() else []),
        *([] if swept else [UPLOADS]),
        *([FOREIGN] if foreign.is_dir() and any(foreign.iterdir()) else []),
    ]
    return Receipt(
        erased_at=now(),
        cases=tuple(ErasedCase(case.case_id, case.key, case.content_sha256) for case in found),
        not_on_file=tuple(missing),
        rows=rows,
        removed=(*removed, *done.removed),
        written=generation.files if generation else (),
        generation=generation.name if generation else "",
        manifest_sha256=generation.sha256 if generation else "",
        database=database.place,
        database_bytes_before=done.bytes_before,
        database_bytes_after=done.bytes_after,
        last_tombstone=gallery.catalog.heads().last_tombstone,
        beyond=tuple(beyond),
    )
