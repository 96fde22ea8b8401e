"""Long work on record: queued, running, then done or failed, or interrupted when its process died.

A running job names its owner: host, process id and the time that process started. On the same host a job whose owner is
gone is interrupted at once; on another host, when nothing was heard of it for ``SILENCE``. ``progress`` is the sign of
life, so work that takes long between two steps calls it in between.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from retrieval.database import Database, now
from retrieval.errors import ConflictError, NotFoundError
from retrieval.schema import jobs
from retrieval.storable import clean

SILENCE = timedelta(minutes=10)
DIED = "The process that ran this job ended before the job did. What it had committed is kept; start it again."


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of long work. ``progress`` counts up to ``total`` (0 when unknown); ``result`` is JSON text or ""."""

    id: int
    kind: str
    state: JobState
    progress: int
    total: int
    message: str
    created_at: str
    updated_at: str
    result: str


class Jobs:
    """The jobs of one gallery. Every read first marks those interrupted whose process has died."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, kind: str, total: int = 0) -> Job:
        """Queue a job."""
        with self._database.write() as connection:
            return _insert(connection, kind, total, JobState.QUEUED, "")

    def begin(self, kind: str, total: int = 0) -> Job:
        """A job that this process runs at once; ConflictError while another of its kind is queued or runs."""
        with self._database.write() as connection:
            _mark_interrupted(connection)
            waiting = (JobState.QUEUED.value, JobState.RUNNING.value)
            other = connection.scalar(select(jobs.c.id).where(jobs.c.kind == kind, jobs.c.state.in_(waiting)).limit(1))
            if other is not None:
                raise ConflictError(f"Another {kind} is under way (job {other}): wait for it to end.")
            return _insert(connection, kind, total, JobState.RUNNING, owner())

    def claim(self, kinds: Sequence[str]) -> Job | None:
        """Take the oldest queued job of these kinds for this process, None when there is none. Two never take one."""
        with self._database.write() as connection:
            _mark_interrupted(connection)
            oldest = (
                select(jobs.c.id)
                .where(jobs.c.state == JobState.QUEUED.value, jobs.c.kind.in_(list(kinds)))
                .order_by(jobs.c.id)
                .limit(1)
            )
            job_id = connection.scalar(oldest)
            return None if job_id is None else _set(connection, job_id, JobState.RUNNING, owner=owner())

    def start(self, job_id: int) -> Job:
        """Take one queued job by its id; ConflictError when it isn't queued any more."""
        with self._database.write() as connection:
            job = _need(connection, job_id)
            if job.state is not JobState.QUEUED:
                raise ConflictError(f"Job {job_id} is {job.state}, expected one that is queued.")
            return _set(connection, job_id, JobState.RUNNING, owner=owner())

    def progress(self, job_id: int, progress: int, total: int | None = None, message: str | None = None) -> Job:
        """Say how far a running job is; also its sign of life."""
        values: dict[str, Any] = {"progress": progress}
        if total is not None:
            values["total"] = total
        if message is not None:
            values["message"] = clean(message)
        return self._change(job_id, JobState.RUNNING, **values)

    def finish(self, job_id: int, result: str = "", message: str = "") -> Job:
        """A running job has come to its end; ``result`` is JSON text."""
        return self._change(job_id, JobState.DONE, result=clean(result), message=clean(message))

    def fail(self, job_id: int, reason: str, result: str = "") -> Job:
        """A running job has ended without what it was for; ``reason`` is a sentence without patient data.

        ``result``: what it found all the same, as JSON text.
        """
        return self._change(job_id, JobState.FAILED, result=clean(result), message=clean(reason))

    def _change(self, job_id: int, state: JobState, **values: Any) -> Job:
        with self._database.write() as connection:
            job = _need(connection, job_id)
            if job.state is not JobState.RUNNING:
                raise ConflictError(f"Job {job_id} is {job.state}, expected one that is running.")
            return _set(connection, job_id, state, **values)

    def job(self, job_id: int) -> Job:
        """NotFoundError when there is none."""
        self._reap()
        with self._database.read() as connection:
            return _need(connection, job_id)

    def list_jobs(self, limit: int = 100) -> list[Job]:
        """The newest first."""
        self._reap()
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(select(jobs).order_by(jobs.c.id.desc()).limit(limit))]

    def _reap(self) -> None:
        with self._database.read() as connection:  # most often there is nothing to write, and no lock to take
            dead = _dead(connection)
        if dead:
            with self._database.write() as connection:
                _mark_interrupted(connection)


def _insert(connection: Connection, kind: str, total: int, state: JobState, owned_by: str) -> Job:
    at = now()
    row = {
        "kind": kind,
        "state": state.value,
        "progress": 0,
        "total": total,
        "message": "",
        "owner": owned_by,
        "created_at": at,
        "updated_at": at,
        "result": "",
    }
    return _job(connection.execute(insert(jobs).values(row).returning(*jobs.c)).one())


def owner() -> str:
    """This process: host, process id, start time. A process id alone is used again by a later process."""
    return f"{socket.gethostname()} {os.getpid()} {_start_of(os.getpid())}"


def _start_of(pid: int) -> str:
    """When a process started, in clock ticks since boot, with the boot's id; "" where the system does not tell.

    One that has ended but was not collected by its parent yet (a zombie) gives another answer than while it ran.
    """
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return f"{boot}/zombie" if facts[0] == "Z" else f"{boot}/{facts[19]}"


def _is_alive(pid: int, start: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as somebody else
    return _start_of(pid) == start


def _dead(connection: Connection) -> list[int]:
    rows = connection.execute(
        select(jobs.c.id, jobs.c.owner, jobs.c.updated_at).where(jobs.c.state == JobState.RUNNING.value)
    )
    return [row.id for row in rows if _has_died(row.owner, row.updated_at)]


def _has_died(owned_by: str, updated_at: str) -> bool:
    host, pid, start = owned_by.split(" ")
    if host == socket.gethostname():
        return not _is_alive(int(pid), start)
    return datetime.now(UTC) - datetime.fromisoformat(updated_at) > SILENCE


def _mark_interrupted(connection: Connection) -> None:
    for job_id in _dead(connection):
        _set(connection, job_id, JobState.INTERRUPTED, message=DIED)


def _need(connection: Connection, job_id: int) -> Job:
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).first()
    if row is None:
        raise NotFoundError(f"No job {job_id}: expected the id of a job of this gallery.")
    return _job(row)


def _set(connection: Connection, job_id: int, state: JobState, **values: Any) -> Job:
    statement = update(jobs).where(jobs.c.id == job_id).values(state=state.value, updated_at=now(), **values)
    return _job(connection.execute(statement.returning(*jobs.c)).one())


def _job(row: Row[Any]) -> Job:
    return Job(
        id=row.id,
        kind=row.kind,
        state=JobState(row.state),
        progress=row.progress,
        total=row.total,
        message=row.message,
        created_at=row.created_at,
        updated_at=row.updated_at,
        result=row.result,
    )
