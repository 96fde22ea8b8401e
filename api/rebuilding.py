"""Rebuilds of the index, one at a time, in a thread of their own; their state is in the catalog's jobs."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from indexer.rebuild import rebuild_compared, rollback
from retrieval.errors import ConflictError, PrecedentError, StoreError
from retrieval.gallery import Gallery
from retrieval.indexes import index_type, split_backend
from retrieval.jobs import Job, Jobs, JobState
from retrieval.publish import Publication
from retrieval.shadow_figures import Gates

log = logging.getLogger("precedent.api")

KIND = "rebuild"
STEP = 4096  # vectors between two notes of progress


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be built. ``backend``: "" for that of the settings."""

    backend: str = ""
    gates: Gates = field(default_factory=Gates)
    dry_run: bool = False


class Rebuilding:
    """Starts rebuilds and takes them back. Searches go on meanwhile."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._jobs = Jobs(gallery.catalog.database)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rebuild")
        self._stopping = threading.Event()

    def close(self) -> None:
        """Give up what runs; the live generation stays, the job says that it was interrupted."""
        self._stopping.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def start(self, order: Order) -> Job:
        """Begin one; UsageError for an unknown backend or options it does not know, ConflictError beside another."""
        order = replace(order, backend=order.backend or self._gallery.settings.index)
        name, options = split_backend(order.backend)
        index_type(name).create(self._gallery.state().dim, options)
        job = self._jobs.begin(KIND, total=len(self._gallery))
        self._thread.submit(self._run, job, order)
        return job

    def job(self, job_id: int) -> Job:
        return self._jobs.job(job_id)

    def all(self) -> list[Job]:
        """The newest first."""
        return [job for job in self._jobs.list_jobs() if job.kind == KIND]

    def take_back(self, job_id: int) -> str:
        """Make the generation before that job's live again; ConflictError unless the job's is the live one."""
        published = result_of(self._jobs.job(job_id)).generation
        live = self._gallery.state().generation
        if not published or published != live:
            raise ConflictError(
                f"Rebuild {job_id} is not what is live (that is '{live or 'none'}'): only the live generation "
                "can be rolled back."
            )
        return rollback(self._gallery).name

    def _run(self, job: Job, order: Order) -> None:
        job_id, noted = job.id, 0

        def note(done: int) -> None:
            nonlocal noted
            if self._stopping.is_set():
                raise StoreError("The service was stopped before the rebuild was done: start it again.")
            if done - noted >= STEP:
                noted = done
                self._jobs.progress(job_id, done)

        try:
            done = rebuild_compared(
                self._gallery, backend=order.backend, gates=order.gates, dry_run=order.dry_run, progress=note
            )
            total = max(job.total, done.manifest.facts.count)
            self._jobs.progress(job_id, total, total)
            result = {
                "generation": done.manifest.name if done.live else "",
                "dry_run": order.dry_run,
                "report": done.report.to_json(),
            }
            if done.refusal and not order.dry_run:
                self._jobs.fail(job_id, done.refusal, json.dumps(result))
            else:
                self._jobs.finish(job_id, json.dumps(result), _told(done))
        except PrecedentError as error:
            self._fail(job_id, str(error))
        except Exception as error:  # noqa: BLE001 - a thread's last border: the job must not seem to run for ever
            log.error("rebuild %d failed with %s", job_id, type(error).__name__)
            self._fail(job_id, f"The rebuild failed unexpectedly ({type(error).__name__}); the live generation stays.")

    def _fail(self, job_id: int, reason: str) -> None:
        try:
            if self._jobs.job(job_id).state is JobState.RUNNING:
                self._jobs.fail(job_id, reason)
        except PrecedentError as error:
            log.error("rebuild %d failed and so did noting it: %s", job_id, type(error).__name__)


def _told(done: Publication) -> str:
    if done.live:
        return "The new generation is live."
    told = "A dry run: the new generation was compared and thrown away."
    return f"{told} It would have been refused. {done.refusal}" if done.refusal else told


@dataclass(frozen=True, slots=True)
class Result:
    """What a rebuild's job left. ``report``: as ``ShadowReport.to_json``, None where it ended before."""

    generation: str = ""
    dry_run: bool = False
    report: dict[str, Any] | None = None


def result_of(job: Job) -> Result:
    """Of a job that has ended; an empty one of others."""
    return Result(**json.loads(job.result)) if job.result else Result()
