"""Files that arrive by upload: indexed like any others, but only their pixels are kept, never their headers.

A file sent over HTTP has no place of its own to come back to, so the frames that were embedded are kept in the data
directory (``HOME/kept``), where later views and re-embedding read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from indexer.events import CaseDone, Event, FileDone
from indexer.keeping import KeptFolder, tidying
from indexer.labels import RowFacts
from indexer.pipeline import Options, index_scans
from indexer.report import CaseStatus, FileStatus
from indexer.sandbox import Sandbox
from indexer.walk import walk
from retrieval.gallery import Gallery


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """What became of one uploaded file (or one member of an uploaded zip), under the name it came with.

    ``conflict``: it failed because its identity is on file with other content; ``reason`` has both hashes.
    ``updated``: its pixels were on file already, and what was said of its case is changed.
    """

    name: str
    status: FileStatus
    case_id: str = ""
    reason: str = ""
    conflict: bool = False
    updated: bool = False


@dataclass(frozen=True, slots=True)
class _Same:
    """The same facts for every file of one upload."""

    facts: RowFacts

    def match(self, path: Path, study_uid: str = "", series_uid: str = "", sop_uid: str = "") -> RowFacts | None:
        return self.facts


@dataclass(slots=True)
class _Told:
    names: Mapping[Path, str]
    statuses: list[UploadStatus] = field(default_factory=list)
    renewed: set[str] = field(default_factory=set)  # a case is told before its files are

    def __call__(self, event: Event) -> None:
        if isinstance(event, CaseDone) and event.status is CaseStatus.UPDATED:
            self.renewed.add(event.case_id)
        if isinstance(event, FileDone):
            name = self.names.get(event.source.path, event.source.path.name)
            name = f"{name}!{event.source.member}" if event.source.member else name
            conflict = event.rejection is not None and event.rejection.stage == "commit"
            updated = event.status is FileStatus.UNCHANGED and event.case_id in self.renewed
            self.statuses.append(UploadStatus(name, event.status, event.case_id, event.reason, conflict, updated))


def add_files(
    gallery: Gallery,
    sandbox: Sandbox,
    files: Mapping[Path, str],
    *,
    facts: RowFacts | None = None,
    source: str = "",
    replace_existing: bool = False,
) -> list[UploadStatus]:
    """Index uploaded files (path on disk -> name it came with) and keep their pixels; one truthful status per file.

    Cases are durable when this returns. ``facts`` describe all of them (labels, report, patient id).
    """
    told = _Told(files)
    with KeptFolder(gallery).upload() as upload:
        described = _Same(facts) if facts else None
        options = Options(labels=described, source=source, replace=replace_existing, keep=upload.keep)
        scans = list(sandbox.scan(walk(list(files))))
        index_scans(gallery, sandbox, scans, options, told)
    return sorted(told.statuses, key=lambda status: status.name)


def delete_cases(gallery: Gallery, case_ids: Sequence[str]) -> list[str]:
    """Delete cases and the pixels kept of them; returns the ids that existed."""
    kept = KeptFolder(gallery)
    names = {name for case_id in case_ids for name in kept.names_of(case_id)}
    gone = gallery.delete(case_ids)
    with tidying():
        kept.remove(names)
    return gone


def delete_patient(gallery: Gallery, patient_key: str) -> int:
    """Delete every case of one patient and the pixels kept of them; returns how many there were."""
    keys = gallery.catalog.keys_of_patient(patient_key)
    case_ids = [case.case_id for case in gallery.catalog.cases(keys).values()]
    return len(delete_cases(gallery, case_ids))


def sweep_kept(gallery: Gallery) -> int:
    """Remove kept pixels that no case on file refers to (an upload that was cut off); returns how many files."""
    return KeptFolder(gallery).sweep()
