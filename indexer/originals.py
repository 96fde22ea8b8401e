"""Back from a case on file to the pixels it was made of: for showing a slice and for embedding anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from indexer.sandbox import Sandbox
from indexer.sources import Rejection, Source, Wanted
from retrieval.errors import SourceGone, UsageError
from retrieval.gallery import Gallery
from retrieval.privacy import Secret
from retrieval.types import Case, CaseFile, Image

KEPT = "kept"  # the format of kept uploads, and their folder in the data directory


def seal(source: Source, reader: str, secret: Secret) -> bytes:
    """Where a file is and which reader reads it, sealed with the store's key: file names can hold names."""
    return secret.seal(
        "\0".join([str(source.path.absolute()), source.member, reader]).encode("utf-8", "surrogateescape")
    )


def unseal(sealed: bytes, secret: Secret) -> tuple[Source, str]:
    """The source and the format of its reader."""
    path, member, reader = secret.unseal(sealed).decode("utf-8", "surrogateescape").split("\0")
    return Source(Path(path), member), reader


def read_frames(gallery: Gallery, sandbox: Sandbox, case: Case, frames: Sequence[int]) -> Iterator[Image]:
    """The frames of a case, 0-based and in the order asked, decoded as they were when it was indexed.

    SourceGone when a file has been moved, removed or has another size since, or no longer decodes; UsageError for a
    frame the case does not have.
    """
    if bad := [n for n in frames if not 0 <= n < len(case.frames)]:
        raise UsageError(f"Slice {bad[0]} does not exist: this case has slices 0 to {len(case.frames) - 1}.")
    files = gallery.catalog.files(case.case_id)
    if not files:
        raise SourceGone(
            "The files of this case did not come with it: it was imported as a vector. Index them into another data "
            "directory to see them."
        )
    requests = [
        request(files[file], tuple(case.frames[n].frame for n in run), gallery.secret, gallery.settings.home)
        for file, run in groupby(frames, key=lambda n: case.frames[n].file)
    ]
    for reply in sandbox.read(requests):
        if isinstance(reply, Rejection):
            raise SourceGone(f"The file of this case no longer decodes: {reply.reason}")
        yield reply.image


def request(file: CaseFile, frames: tuple[int, ...], secret: Secret, home: Path) -> Wanted:
    """The request for frames of a file on record. SourceGone when it is not there or has another size."""
    source, reader = unseal(file.sealed_path, secret)
    if reader == KEPT:  # by name, so that a data directory may be moved
        source = Source(home / KEPT / source.path.name)
    try:
        size = source.path.stat().st_size
    except OSError as error:
        raise SourceGone(
            "The file of this case is no longer where it was indexed from: put it back, or index it from its new place."
        ) from error
    if not source.member and size != file.bytes:
        raise SourceGone("The file of this case has changed since it was indexed: index it again.")
    return Wanted(source, reader, frames)
