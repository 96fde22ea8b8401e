"""``HOME/kept``: the pixels of uploaded cases, one file per upload that led to a case, and none besides.

Every upload writes under a name of its own, so two that bring the same case never share a file. Once the catalog has
spoken, what no case refers to is removed: the pixels a grown series had before, those of a case that was refused.
An upload holds the folder shared while its cases are on their way to the catalog; a sweep holds it alone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from indexer.embedder import Finished
from indexer.originals import KEPT, seal, unseal
from indexer.readers.kept import SUFFIX, write_kept
from indexer.sources import Source
from retrieval.errors import ConflictError, NotFoundError, StoreError
from retrieval.gallery import Gallery
from retrieval.storage import make_directory, storing
from retrieval.types import EmbeddedCase

SWEEP_WAITS_SECONDS = 30.0

_log = logging.getLogger(__name__)


class Upload:
    """What one upload has written, and which files its cases had before."""

    def __init__(self, kept: KeptFolder) -> None:
        self._kept = kept
        self._touched: dict[str, set[str]] = {}  # case id -> names of files that may have become useless

    def keep(self, finished: Finished, embedded: EmbeddedCase) -> EmbeddedCase:
        """Write the frames, then let the case point at them instead of at the uploaded files."""
        case = embedded.case
        path = self._kept.folder / f"{case.case_id}-{secrets.token_hex(8)}{SUFFIX}"
        touched = self._touched.setdefault(case.case_id, set())
        touched |= {path.name} | self._kept.names_of(case.case_id)
        with storing("The pixels of an upload can't be kept"):
            write_kept(path, finished.images)
            size = path.stat().st_size
        sealed = seal(Source(path), KEPT, self._kept.gallery.secret)
        files = tuple(replace(file, bytes=size, sealed_path=sealed) for file in embedded.files)
        number = {n: kept for kept, n in enumerate(finished.draft.chosen)}
        frames = tuple(replace(case.frames[n], file=0, frame=kept) for n, kept in number.items())
        rows = tuple(number[n] for n in embedded.embedding.slice_frames)
        embedding = replace(embedded.embedding, slice_frames=rows)
        return replace(embedded, case=replace(case, frames=frames), embedding=embedding, files=files)

    def settle(self) -> None:
        """Remove what no case refers to, now that every case is committed or refused.

        That is final: to fail here must not look as if it were not.
        """
        for case_id, names in self._touched.items():
            with tidying():
                self._kept.remove(names - self._kept.names_of(case_id))


@dataclass(frozen=True, slots=True)
class KeptFolder:
    """The folder of one gallery. A case's file is known by its name, wherever the data directory was moved to."""

    gallery: Gallery

    @property
    def folder(self) -> Path:
        return self.gallery.settings.home / KEPT

    @contextmanager
    def upload(self) -> Iterator[Upload]:
        """To keep pixels within; on the way out, after an error too, nothing is left that no case refers to."""
        with storing("The folder of kept uploads can't be made"):
            make_directory(self.folder)
        with self._held(fcntl.LOCK_SH):
            upload = Upload(self)
            try:
                yield upload
            finally:
                upload.settle()

    def names_of(self, case_id: str) -> set[str]:
        """Names of the files that a case on file refers to; none when it was not uploaded or is not there."""
        try:
            files = self.gallery.catalog.files(case_id)
        except NotFoundError:
            return set()
        places = [unseal(sealed, self.gallery.secret) for sealed in {file.sealed_path for file in files}]
        return {source.path.name for source, reader in places if reader == KEPT}

    def remove(self, names: Iterable[str]) -> int:
        """Delete files of this folder; how many names there were. StoreError when one can't be deleted."""
        gone = sorted(names)
        with storing("Kept pixels that no case refers to can't be removed"):
            for name in gone:
                (self.folder / name).unlink(missing_ok=True)
        return len(gone)

    def sweep(self) -> int:
        """Remove what an upload that was cut off has left; how many files. ConflictError while uploads go on."""
        if not self.folder.is_dir():
            return 0
        with self._held(fcntl.LOCK_EX):
            found = {path.name for path in self.folder.iterdir() if not path.is_dir()}
            case_ids = {name.partition("-")[0] for name in found}
            return self.remove(found.difference(*(self.names_of(case_id) for case_id in sorted(case_ids))))

    @contextmanager
    def _held(self, how: int) -> Iterator[None]:
        with storing("The folder of kept uploads can't be opened"):
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(descriptor, how)
            yield
        finally:
            os.close(descriptor)


@contextmanager
def tidying() -> Iterator[None]:
    """For what comes after the catalog has spoken: left for the next sweep when it can't be done now."""
    try:
        yield
    except StoreError as error:
        _log.warning("Kept pixels of no case may be left: precedent verify --repair removes them. %s", error)


def _lock(descriptor: int, how: int) -> None:
    """Shared is granted as soon as a sweep is over, which is soon; alone only between uploads, which may never be."""
    until = time.monotonic() + SWEEP_WAITS_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, how if how == fcntl.LOCK_SH else how | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise ConflictError(
                    "Uploads are being kept at this moment: try again when they are through."
                ) from error
            time.sleep(0.05)
        else:
            return
