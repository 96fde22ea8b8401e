"""Files that arrive by upload: indexed like any others, but only their pixels are kept, never their headers.

A file sent over HTTP has no place of its own to come back to, so the frames that were embedded are kept in the data
directory (``HOME/kept``), where later views and re-embedding read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from indexer.embedder import Finished
from indexer.events import Event, FileDone
from indexer.labels import RowFacts
from indexer.originals import seal, unseal
from indexer.pipeline import Options, index_scans
from indexer.readers.kept import write_kept
from indexer.report import FileStatus
from indexer.sandbox import Sandbox
from indexer.sources import Source
from indexer.walk import walk
from retrieval.gallery import Gallery
from retrieval.types import EmbeddedCase

KEPT_SUFFIX = ".precedent"


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """What became of one uploaded file (or one member of an uploaded zip), under the name it came with."""

    name: str
    status: FileStatus
    case_id: str = ""
    reason: str = ""


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

    def __call__(self, event: Event) -> None:
        if isinstance(event, FileDone):
            name = self.names.get(event.source.path, event.source.path.name)
            name = f"{name}!{event.source.member}" if event.source.member else name
            self.statuses.append(UploadStatus(name, event.status, event.case_id, event.reason))


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
    folder = gallery.settings.home / "kept"
    folder.mkdir(parents=True, exist_ok=True)

    def keep(finished: Finished, embedded: EmbeddedCase) -> EmbeddedCase:
        return _keep(gallery, folder, finished, embedded)

    options = Options(labels=_Same(facts) if facts else None, source=source, replace=replace_existing, keep=keep)
    scans = list(sandbox.scan(walk(list(files))))
    index_scans(gallery, sandbox, scans, options, told)
    return sorted(told.statuses, key=lambda status: status.name)


def delete_cases(gallery: Gallery, case_ids: Sequence[str]) -> list[str]:
    """Delete cases and the pixels kept of them; returns the ids that existed."""
    kept = [path for case_id in case_ids for path in _kept_paths(gallery, case_id)]
    gone = gallery.delete(case_ids)
    for path in kept:
        path.unlink(missing_ok=True)
    return gone


def delete_patient(gallery: Gallery, patient_key: str) -> int:
    """Delete every case of one patient and the pixels kept of them; returns how many there were."""
    keys = gallery.catalog.keys_of_patient(patient_key)
    case_ids = [case.case_id for case in gallery.catalog.cases(keys).values()]
    return len(delete_cases(gallery, case_ids))


def sweep_kept(gallery: Gallery) -> int:
    """Remove kept pixels that no case on file refers to (an upload that was cut off); returns how many."""
    folder = gallery.settings.home / "kept"
    swept = 0
    for path in sorted(folder.glob(f"*{KEPT_SUFFIX}")) if folder.is_dir() else []:
        case_id, _, content = path.name.removesuffix(KEPT_SUFFIX).partition("-")
        if not gallery.catalog.content_of([case_id]).get(case_id, "").startswith(content):
            path.unlink(missing_ok=True)
            swept += 1
    return swept


def _keep(gallery: Gallery, folder: Path, finished: Finished, embedded: EmbeddedCase) -> EmbeddedCase:
    """Write the frames, then let the case point at them instead of at the uploaded files."""
    case = embedded.case
    path = folder / f"{case.case_id}-{case.content_sha256[:16]}{KEPT_SUFFIX}"
    write_kept(path, finished.images)
    sealed = seal(Source(path), "kept", gallery.secret)
    size = path.stat().st_size
    files = tuple(replace(file, bytes=size, sealed_path=sealed) for file in embedded.files)
    frames = tuple(
        replace(case.frames[n], file=0, frame=number) for number, n in enumerate(embedded.embedding.slice_frames)
    )
    embedding = replace(embedded.embedding, slice_frames=tuple(range(len(frames))))
    return replace(embedded, case=replace(case, frames=frames), embedding=embedding, files=files)


def _kept_paths(gallery: Gallery, case_id: str) -> list[Path]:
    """The kept files of a case, if it has any: nothing outside HOME/kept is ever named."""
    if not gallery.catalog.content_of([case_id]):
        return []
    folder = (gallery.settings.home / "kept").absolute()
    paths = {unseal(file.sealed_path, gallery.secret)[0].path for file in gallery.catalog.files(case_id)}
    return sorted(path for path in paths if path.parent == folder)
