"""Rebuilds of the index, one at a time, in a thread of their own; their state is in the catalog's jobs."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from indexer.anew import Terms, embed_anew, target_of
from indexer.limits import Limits
from indexer.patience import Patience
from indexer.rebuild import rebuild_compared, rollback
from indexer.reembed import Target
from indexer.sandbox import Sandbox
from indexer.workers import worker_count
from retrieval.encoders.paths.prepare import choose_while_encoding
from retrieval.errors import ConflictError, PrecedentError, StoreError, UsageError
from retrieval.gallery import Gallery
from retrieval.indexes import index_type, split_backend
from retrieval.indexes.choice import chosen
from retrieval.jobs import Job, Jobs, JobState
from retrieval.publish import Publication
from retrieval.shadow_figures import Gates

log = logging.getLogger("precedent.api")

KIND = "rebuild"
STEP = 4096  # vectors between two notes of progress
SECONDS = 1.0  # or as long, where embedding takes its time
AWAY_SECONDS = 3600.0  # how a rebuild ended is noted when the database server is back
MISSING = 100  # cases that could not be embedded anew that a job names


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be built. ``backend``: "" for that of the settings. ``encoder``: to embed anew with, "" to keep the
    vectors; ``drop_missing``: cases that can't be embedded anew are then deleted."""

    backend: str = ""
    gates: Gates = field(default_factory=Gates)
    dry_run: bool = False
    encoder: str = ""
    drop_missing: bool = False


class Rebuilding:
    """Starts rebuilds and takes them back. Searches go on meanwhile."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._jobs = Jobs(gallery.catalog.database)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rebuild")
        self._stopping = threading.Event()
        self._patience = Patience(AWAY_SECONDS)
        self._untold: tuple[int, Ending] | None = None

    def close(self) -> None:
        """Give up what runs; the live generation stays, the job says that it was interrupted."""
        self._stopping.set()
        self._patience.lose()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def start(self, order: Order) -> Job:
        """Begin one; UsageError for an unknown backend or options it does not know, ConflictError beside another.

        NotFoundError or MissingExtra for an encoder that can't be opened, UsageError for the gallery's own.
        """
        order = replace(order, backend=order.backend or self._gallery.settings.index)
        name, options = split_backend(chosen(order.backend, len(self._gallery), self._gallery.state().dim))
        index_type(name).create(self._gallery.state().dim, options)
        target = self._target(order)
        self._tell_late()
        job = self._jobs.begin(KIND, total=len(self._gallery))
        self._thread.submit(self._run, job, order, target)
        return job

    def _target(self, order: Order) -> Target | None:
        if not order.encoder:
            if order.drop_missing:
                raise UsageError("drop_missing goes with an encoder: an index of the stored vectors reads no file.")
            return None
        target = target_of(self._gallery.catalog.embedded_with(), self._gallery.settings, order.encoder)
        if target.binding.fingerprint == self._gallery.fingerprint:
            raise UsageError(f"The gallery is embedded with {order.encoder} already: leave the encoder out.")
        return target

    def job(self, job_id: int) -> Job:
        with suppress(StoreError):
            self._tell_late()
        return self._as_known(self._jobs.job(job_id))

    def all(self) -> list[Job]:
        """The newest first."""
        with suppress(StoreError):
            self._tell_late()
        return [self._as_known(job) for job in self._jobs.list_jobs() if job.kind == KIND]

    def take_back(self, job_id: int) -> str:
        """Make the generation before that job's live again; ConflictError unless the job's is the live one."""
        published = result_of(self._jobs.job(job_id)).generation
        live = self._gallery.catalog.heads().generation  # also of a gallery that was embedded anew since it was opened
        if not published or published != live:
            raise ConflictError(
                f"Rebuild {job_id} is not what is live (that is '{live or 'none'}'): only the live generation "
                "can be rolled back."
            )
        return rollback(self._gallery).name

    def _run(self, job: Job, order: Order, target: Target | None) -> None:
        """A job whose end is not on file would seem to run for as long as this process does, and keep others away."""
        ending = self._ending(job, order, target)
        try:
            self._patience.outlast(lambda: self._end(job.id, ending))
        except PrecedentError as error:
            log.error("rebuild %d has ended, which can't be noted yet: %s", job.id, error)
            self._untold = (job.id, ending)

    def _ending(self, job: Job, order: Order, target: Target | None) -> Ending:
        try:
            return self._anew(job, order, target) if target else self._from_stored(job, order)
        except PrecedentError as error:
            return Ending(str(error), failed=True)
        except Exception as error:  # noqa: BLE001 - a thread's last border: the job must not seem to run for ever
            log.error("rebuild %d failed with %s", job.id, type(error).__name__)
            told = f"The rebuild failed unexpectedly ({type(error).__name__}); the live generation stays."
            return Ending(told, failed=True)

    def _end(self, job_id: int, ending: Ending) -> None:
        """Note how a rebuild ended; to do so again changes nothing."""
        if self._jobs.job(job_id).state is not JobState.RUNNING:
            return
        result = json.dumps(asdict(ending.result)) if ending.result else ""
        if ending.failed:
            self._jobs.fail(job_id, ending.message, result)
            return
        self._jobs.progress(job_id, ending.total, ending.total)
        self._jobs.finish(job_id, result, ending.message)

    def _tell_late(self) -> None:
        """Note what could not be noted at its time; StoreError while it still can't be."""
        if untold := self._untold:
            self._end(*untold)
            self._untold = None

    def _as_known(self, job: Job) -> Job:
        """The job as it is, also where that can't be noted: on a full disk of all things it must be told."""
        job_id, ending = self._untold or (0, None)
        if ending is None or job.id != job_id or job.state is not JobState.RUNNING:
            return job
        state, result = JobState.FAILED if ending.failed else JobState.DONE, ending.result
        return replace(job, state=state, message=ending.message, result=json.dumps(asdict(result)) if result else "")

    def _from_stored(self, job: Job, order: Order) -> Ending:
        note = self._noting(job)
        done = rebuild_compared(
            self._gallery,
            backend=order.backend,
            gates=order.gates,
            dry_run=order.dry_run,
            progress=lambda vectors: note(vectors, job.total),
        )
        total = max(job.total, done.manifest.facts.count)
        return _as_ordered(order, done.refusal, Ending(_told(done), total, _result(done, order)))

    def _anew(self, job: Job, order: Order, target: Target) -> Ending:
        """Embedded anew. Progress counts cases; the index and the comparison come after the last of them."""
        gallery, note = self._gallery, self._noting(job)
        if gallery.settings.precision == "auto":
            choose_while_encoding(target.encoder, gallery.settings.home)
        with Sandbox(worker_count(gallery.settings), Limits.of(gallery.settings)) as sandbox:
            done = embed_anew(
                gallery.catalog,
                gallery.settings,
                gallery.secret,
                sandbox,
                target,
                Terms(order.backend, order.gates, order.dry_run, order.drop_missing),
                embedded=note,
                built=lambda vectors: note(0, 0),
            )
        total = done.publication.manifest.facts.count if done.publication else job.total
        result = _result(done.publication, order) if done.publication else Result(dry_run=order.dry_run)
        cases = [(case.case_id, case.reason) for case in done.missing.listed[:MISSING]]
        result = replace(result, missing=len(done.missing.keys), missing_cases=cases)
        told = _told(done.publication) if done.publication else done.refusal
        return _as_ordered(order, done.refusal, Ending(told, total, result))

    def _noting(self, job: Job) -> Callable[[int, int], None]:
        """Writes progress down every ``STEP`` or ``SECONDS``, which is also the job's sign of life; stops the work when
        the service does."""
        noted, at = 0, time.monotonic()

        def note(done: int, total: int) -> None:
            nonlocal noted, at
            if self._stopping.is_set():
                raise StoreError("The service was stopped before the rebuild was done: start it again.")
            if done - noted >= STEP or time.monotonic() - at >= SECONDS:
                noted, at = max(done, noted), time.monotonic()
                self._jobs.progress(job.id, noted, total or None)

        return note


def _as_ordered(order: Order, refusal: str, ending: Ending) -> Ending:
    """A refusal is a failure, but of a dry run it is the answer."""
    return replace(ending, message=refusal, failed=True) if refusal and not order.dry_run else ending


def _told(done: Publication) -> str:
    if done.live:
        return "The new generation is live."
    told = "A dry run: the new generation was compared and thrown away."
    return f"{told} It would have been refused. {done.refusal}" if done.refusal else told


def _result(done: Publication, order: Order) -> Result:
    return Result(done.manifest.name if done.live else "", order.dry_run, done.report.to_json())


@dataclass(frozen=True, slots=True)
class Result:
    """What a rebuild's job left. ``report``: as ``ShadowReport.to_json``, None where it ended before.

    ``missing``: cases that could not be embedded anew; of the first, id and reason.
    """

    generation: str = ""
    dry_run: bool = False
    report: dict[str, Any] | None = None
    missing: int = 0
    missing_cases: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a rebuild ended. ``message``: for people. ``total``: what it counted up to."""

    message: str
    total: int = 0
    result: Result | None = None
    failed: bool = False


def result_of(job: Job) -> Result:
    """Of a job that has ended; an empty one of others."""
    return Result(**json.loads(job.result)) if job.result else Result()
