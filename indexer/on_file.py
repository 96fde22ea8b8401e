"""A case on file as a draft again: what it was made of, to be decoded and embedded once more."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from indexer.drafts import Draft
from indexer.originals import request
from indexer.sandbox import Sandbox
from indexer.sources import Rejection, Scan
from retrieval.encoders.pooling import choose_slices
from retrieval.errors import SourceGone
from retrieval.privacy import Secret
from retrieval.types import Case, CaseFile


@dataclass(frozen=True, slots=True)
class Original:
    """A case and the draft that embeds it anew. Its scans state what is on record, not what was read just now."""

    case: Case
    draft: Draft

    @property
    def path(self) -> str:
        """Of its first file."""
        return str(self.draft.scans[0].source)


def draft_on_file(case: Case, files: Sequence[CaseFile], most_frames: int, secret: Secret, home: Path) -> Original:
    """Ask again for the frames of a case. SourceGone when a file is not there, has another size, or none is known."""
    if not files or not case.frames:
        raise SourceGone("It is not known which file it was read from.")
    chosen = choose_slices(len(case.frames), most_frames)
    whole = [request(file, (0,), secret, home) for file in files]  # also those that no chosen frame is of
    wanted = tuple(
        replace(whole[file], frames=tuple(case.frames[n].frame for n in run))
        for file, run in groupby(chosen, key=lambda n: case.frames[n].file)
    )
    scans = tuple(
        Scan(one.source, one.format, file.sha256, file.bytes, sum(frame.file == n for frame in case.frames))
        for n, (one, file) in enumerate(zip(whole, files, strict=True))
    )
    draft = Draft(case, scans, chosen, wanted, tuple(files), part="", facts=None, reported=())
    return Original(case, draft)


def scanned(sandbox: Sandbox, original: Original) -> Original:
    """With the headers of its files as they are now; SourceGone when one is no longer what it was."""
    draft = original.draft
    found: list[Scan] = []
    with closing(sandbox.scan(scan.source for scan in draft.scans)) as scans:
        for scan, file in zip(scans, draft.files, strict=True):
            if isinstance(scan, Rejection):
                raise SourceGone(f"A file of it can no longer be read: {scan.reason}")
            if scan.sha256 != file.sha256:
                raise SourceGone("A file of it has changed since it was indexed.")
            found.append(scan)
    return replace(original, draft=replace(draft, scans=tuple(found)))


def still_the_same(sandbox: Sandbox, original: Original) -> bool:
    """Whether its files have the hashes they had. Reads every byte."""
    try:
        scanned(sandbox, original)
    except SourceGone:
        return False
    return True
