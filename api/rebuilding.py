"""Rebuilds of the index, one at a time, in a thread of their own; their state is in the catalog's jobs."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from retrieval.errors import ConflictError, PrecedentError, StoreError
from retrieval.gallery import Gallery
from retrieval.indexes import index_type, split_backend
from retrieval.jobs import Job, Jobs, JobState
from retrieval.publish import publish, rollback

log = logging.getLogger("precedent.api")

KIND = "rebuild"
STEP = 4096  # vectors between two notes of progress


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

    def start(self, backend: str) -> Job:
        """Queue one; UsageError for an unknown backend or options it does not know, before anything is queued."""
        backend = backend or self._gallery.settings.index
        name, options = split_backend(backend)
        index_type(name).create(self._gallery.state().dim, options)
        job = self._jobs.create(KIND, total=len(self._gallery))
        self._thread.submit(self._run, job.id, backend)
        return job

    def job(self, job_id: int) -> Job:
        return self._jobs.job(job_id)

    def all(self) -> list[Job]:
        """The newest first."""
        return [job for job in self._jobs.list_jobs() if job.kind == KIND]

    def take_back(self, job_id: int) -> str:
        """Make the generation before that job's live again; ConflictError unless the job's is the live one."""
        published = generation_of(self._jobs.job(job_id))
        live = self._gallery.state().generation
        if not published or published != live:
            raise ConflictError(
                f"Rebuild {job_id} is not what is live (that is '{live or 'none'}'): only the live generation "
                "can be rolled back."
            )
        return rollback(self._gallery.catalog, self._gallery.settings.home).name

    def _run(self, job_id: int, backend: str) -> None:
        noted = 0

        def note(done: int) -> None:
            nonlocal noted
            if self._stopping.is_set():
                raise StoreError("The service was stopped before the rebuild was done: start it again.")
            if done - noted >= STEP:
                noted = done
                self._jobs.progress(job_id, done)

        try:
            job = self._jobs.start(job_id)
            manifest = publish(self._gallery.catalog, self._gallery.settings.home, backend, progress=note)
            self._jobs.progress(job_id, max(job.total, manifest.facts.count), max(job.total, manifest.facts.count))
            self._jobs.finish(job_id, json.dumps({"generation": manifest.name}), "The new generation is live.")
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


def generation_of(job: Job) -> str:
    """The generation a finished rebuild published, or ""."""
    return str(json.loads(job.result).get("generation", "")) if job.result else ""
