"""Folders in, a gallery out: walk -> scan -> assemble -> decode -> embed -> commit. Run again, it adds what is missing.

Nothing about progress is stored: what is on file is known by its content, so a run that was killed at any moment is
finished by the same command. A file that is a case by itself goes straight on to decoding while the walk continues;
slices wait on disk (``spool``) until the walk is over, because a series may lie scattered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from indexer.assemble import CasePlan, assemble, group_key, stands_alone
from indexer.drafts import Describer, Draft, draft_of
from indexer.embedder import Engine, Finished
from indexer.events import CaseDone, Event, FileDone, Listener, Scanned
from indexer.limits import Limits
from indexer.patience import Patience
from indexer.renewal import relocate, renew, with_stored
from indexer.report import CaseStatus, FileStatus, Report
from indexer.sandbox import Sandbox
from indexer.sources import Rejection, Scan, Source
from indexer.spool import Spool
from indexer.volume_embedder import embedder_of
from indexer.walk import walk
from indexer.writer import Writer
from retrieval.catalog import Outcome
from retrieval.errors import RejectedInput
from retrieval.gallery import Gallery
from retrieval.types import EmbeddedCase

DRAFTS_AT_ONCE = 64  # looked up on file together


@dataclass(frozen=True, slots=True)
class Options:
    """``source``: name of the data set or site. ``replace``: other pixels under a known id replace the old ones.

    ``resume``: what is on file with the same content is not embedded again.
    ``dry_run``: everything up to decoding, nothing embedded or written. ``keep``: called with each finished case
    before it is committed, to keep its pixels where the sources will not stay. ``patience``: for how many seconds a
    database server may be away before the run ends; what is committed by then is on file, and the same run goes on.
    """

    labels: Describer | None = None
    source: str = ""
    replace: bool = False
    resume: bool = True
    dry_run: bool = False
    keep: Callable[[Finished, EmbeddedCase], EmbeddedCase] | None = None
    patience: float = 0.0


def index(
    gallery: Gallery,
    sandbox: Sandbox,
    paths: Sequence[Path],
    options: Options,
    listen: Listener | None = None,
    *,
    engine: Engine | None = None,
) -> Report:
    """Index files, folders and zips. Returns when everything that could be committed is durable.

    ``engine``: what embeds; None, the gallery's encoder in this process.
    """
    with closing(sandbox.scan(walk(paths, Limits.of(gallery.settings)))) as scans:
        return _Run(gallery, sandbox, options, listen or _silent, engine).over(scans)


def index_scans(
    gallery: Gallery,
    sandbox: Sandbox,
    scans: Iterable[Scan | Rejection],
    options: Options,
    listen: Listener | None = None,
) -> Report:
    """As ``index``, from headers that have been read already (or are being read)."""
    return _Run(gallery, sandbox, options, listen or _silent).over(scans)


def _silent(event: Event) -> None:
    pass


class _Run:
    """The state of one run: its report, and who is told what."""

    def __init__(
        self, gallery: Gallery, sandbox: Sandbox, options: Options, listen: Listener, engine: Engine | None = None
    ) -> None:
        self._engine = engine
        self._gallery = gallery
        self._sandbox = sandbox
        self._options = options
        self._listen = listen
        self._patience = Patience(options.patience)
        self._report = Report()
        self._lock = threading.Lock()  # the writer's thread reports too

    def over(self, scans: Iterable[Scan | Rejection]) -> Report:
        started = time.monotonic()
        try:
            # Closed here, not when an error's traceback is collected: they hold decoders and a temporary database.
            with closing(self._drafts(scans)) as drafts, closing(self._fresh(drafts)) as fresh:
                if self._options.dry_run:
                    for draft in fresh:
                        self._case_done(draft, CaseStatus.ADDED)
                else:
                    self._embed(fresh)
        except KeyboardInterrupt:
            self._report.interrupted = True
        self._report.seconds = time.monotonic() - started
        return self._report

    # from files to drafts

    def _drafts(self, scans: Iterable[Scan | Rejection]) -> Generator[Draft]:
        with Spool(self._gallery.secret) as spool:
            for scan in scans:
                self._listen(Scanned(scan.source))
                if isinstance(scan, Rejection):
                    self._refused(scan)
                elif scan.frames == 0:
                    reason = scan.warnings[0] if scan.warnings else "It holds no pixels."
                    self._tell_file(FileDone(scan.source, FileStatus.NO_PIXELS, reason))
                elif stands_alone(scan):
                    yield from self._drafts_of([scan])
                else:
                    spool.put(group_key(scan), scan)
            for group_of_scans in spool.groups():
                yield from self._drafts_of(group_of_scans)

    def _drafts_of(self, scans: list[Scan]) -> Iterator[Draft]:
        """The cases of one series. Every file of it is told once: with its first case, or as left out."""
        try:
            plans = assemble(scans, Limits.of(self._gallery.settings))
        except RejectedInput as error:
            for scan in scans:
                self._tell_failure(Rejection(scan.source, error.stage, error.reason, scan.sha256))
            return
        used = {scan.source for plan in plans for scan in plan.scans}
        told: set[Source] = set()
        for source, reason in (left_out for plan in plans for left_out in plan.skipped):
            if source not in used | told:
                self._tell_file(FileDone(source, FileStatus.SKIPPED, reason))
                told.add(source)
        for plan in plans:
            reported = tuple(dict.fromkeys(scan.source for scan in plan.scans if scan.source not in told))
            told.update(reported)
            yield self._draft(plan, reported)

    def _draft(self, plan: CasePlan, reported: tuple[Source, ...]) -> Draft:
        slices = self._gallery.most_frames
        return draft_of(plan, self._options.labels, self._options.source, self._gallery.secret, slices, reported)

    def _fresh(self, drafts: Iterator[Draft]) -> Generator[Draft]:
        """Only drafts whose content is not on file; for the others, what is said of them now is renewed."""
        catalog, options, outlast = self._gallery.catalog, self._options, self._patience.outlast
        while chunk := list(islice(drafts, DRAFTS_AT_ONCE)):
            on_file = outlast(partial(catalog.content_of, [draft.case.case_id for draft in chunk]))
            for draft in chunk:
                content = on_file.get(draft.case.case_id)
                if content is None:
                    yield draft
                elif content != draft.case.content_sha256 or not options.resume:
                    yield outlast(partial(with_stored, catalog, draft))
                else:
                    outlast(partial(self._on_file, draft))

    def _on_file(self, draft: Draft) -> None:
        """Nothing to decode; but its files may have moved, and something new may be said of it."""
        catalog, options = self._gallery.catalog, self._options
        if not options.dry_run:
            relocate(catalog, draft, self._gallery.secret)
            if (draft.facts or options.source) and renew(catalog, draft):
                self._case_done(draft, CaseStatus.UPDATED, FileStatus.UNCHANGED)
                return
        self._case_done(draft, CaseStatus.UNCHANGED)

    # from drafts to the gallery

    def _embed(self, drafts: Iterator[Draft]) -> None:
        keep = self._options.keep
        engine = self._engine or self._own_engine()
        with (
            Writer(self._gallery, self._committed, self._patience, replace=self._options.replace) as writer,
            closing(engine.run(drafts)) as cases,
        ):
            for finished in cases:
                if finished.embedded is None:
                    self._case_done(finished.draft, CaseStatus.FAILED, failed=finished.failed)
                    continue
                writer.put(finished, keep(finished, finished.embedded) if keep else finished.embedded)

    def _own_engine(self) -> Engine:
        gallery, keep_images = self._gallery, self._options.keep is not None
        volume_bytes = gallery.settings.volume_memory_mb << 20
        return embedder_of(
            gallery.encoder, gallery.pooling, self._sandbox, volume_bytes=volume_bytes, keep_images=keep_images
        )

    def _committed(self, finished: Finished, outcome: Outcome) -> None:
        draft = finished.draft
        if outcome.status == "conflict":
            refused = tuple(Rejection(scan.source, "commit", outcome.reason, scan.sha256) for scan in draft.scans)
            self._case_done(draft, CaseStatus.FAILED, failed=(*refused, *finished.failed))
            return
        with self._lock:
            self._report.frames += len(finished.draft.chosen)
        self._case_done(draft, CaseStatus(outcome.status), failed=finished.failed, duplicate_of=outcome.duplicate_of)

    # telling

    def _case_done(
        self,
        draft: Draft,
        status: CaseStatus,
        file_status: FileStatus | None = None,
        *,
        failed: Sequence[Rejection] = (),
        duplicate_of: str = "",
    ) -> None:
        case, refusals = draft.case, {rejection.source: rejection for rejection in failed}
        with self._lock:
            self._report.cases[status] += 1
            self._report.duplicates += bool(duplicate_of)
            self._report.warn(case.warnings if status is not CaseStatus.FAILED else ())
        self._listen(CaseDone(case.case_id, status, len(draft.chosen), duplicate_of, case.warnings))
        if file_status is None:
            file_status = FileStatus.UNCHANGED if status is CaseStatus.UNCHANGED else FileStatus.INDEXED
        for source in draft.reported:
            rejection = refusals.get(source)
            if rejection is None and status is CaseStatus.FAILED:  # nothing of a refused case is in the gallery
                rejection = Rejection(
                    source, "decode", "No frame of its case could be decoded.", _sha256(draft, source)
                )
            if rejection:
                self._tell_failure(rejection)
            else:
                self._tell_file(FileDone(source, file_status, case_id=case.case_id))

    def _refused(self, rejection: Rejection) -> None:
        """A file that no reader knows is left out in peace; one that should have been an image has failed."""
        if rejection.stage == "sniff":
            self._tell_file(FileDone(rejection.source, FileStatus.SKIPPED, rejection.reason))
        else:
            self._tell_failure(rejection)

    def _tell_failure(self, rejection: Rejection) -> None:
        with self._lock:
            self._report.fail(rejection)
        self._listen(FileDone(rejection.source, FileStatus.FAILED, rejection.reason, rejection=rejection))

    def _tell_file(self, event: FileDone) -> None:
        with self._lock:
            if event.status is FileStatus.SKIPPED:
                self._report.skip(event.reason)
            else:
                self._report.files[event.status] += 1
        self._listen(event)


def _sha256(draft: Draft, source: Source) -> str:
    return next((scan.sha256 for scan in draft.scans if scan.source == source), "")
