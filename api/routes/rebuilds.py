"""Rebuilding the index beside the live one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.access import Admin
from api.problems import Problem, responses
from api.rebuilding import KIND, Order, Rebuilding, result_of
from api.schemas import MissingBody, RebuildAsked, RebuildBody, RebuildList, RolledBack, ShadowBody
from retrieval.errors import UsageError
from retrieval.jobs import Job
from retrieval.shadow_figures import Gates

router = APIRouter(prefix="/v1", tags=["rebuilds"])
JobId = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.post("/rebuilds", response_model=RebuildBody, status_code=202, responses=responses(400, 404, 409, 501, 507))
def start_rebuild(caller: Admin, asked: RebuildAsked, response: Response) -> RebuildBody:
    """Build a new generation in the background and compare it with the live one before it takes its place.

    With an ``encoder`` every case is embedded anew beside the old vectors, which serve until one commit puts the new in
    their place; after that every process that was open answers 503 until it is restarted. Sent again after an
    interruption, it goes on where it was. ``Location`` is where to ask how far it is. One at a time: 409 while another
    is under way.
    """
    if asked.backend.startswith("milvus:") and not asked.backend.startswith("milvus://"):
        # Whoever asks over the network names no file of this machine.
        raise UsageError("Over HTTP a Milvus index is named by its server, as milvus://host:19530.")
    gates = Gates(asked.min_overlap, asked.min_recall, asked.max_loss)
    job = caller.service.rebuilding.start(Order(asked.backend, gates, asked.dry_run, asked.encoder, asked.drop_missing))
    response.headers["Location"] = f"/v1/rebuilds/{job.id}"
    return _body(job)


@router.get("/rebuilds", response_model=RebuildList, responses=responses())
def list_rebuilds(caller: Admin) -> RebuildList:
    """The newest first."""
    return RebuildList(rebuilds=[_body(job) for job in caller.service.rebuilding.all()])


@router.get("/rebuilds/{job_id}", response_model=RebuildBody, responses=responses(404))
def get_rebuild(caller: Admin, job_id: JobId) -> RebuildBody:
    """How far one is, and what it found."""
    return _body(_rebuild(caller.service.rebuilding, job_id))


@router.post("/rebuilds/{job_id}/rollback", response_model=RolledBack, responses=responses(404, 409))
def roll_back(caller: Admin, job_id: JobId) -> RolledBack:
    """Make the generation before this rebuild's live again."""
    rebuilding = caller.service.rebuilding
    return RolledBack(generation=rebuilding.take_back(_rebuild(rebuilding, job_id).id))


def _rebuild(rebuilding: Rebuilding, job_id: int) -> Job:
    job = rebuilding.job(job_id)
    if job.kind != KIND:
        raise Problem(404, f"There is no rebuild {job_id}: GET /v1/rebuilds lists them.")
    return job


def _body(job: Job) -> RebuildBody:
    result = result_of(job)
    return RebuildBody(
        id=job.id,
        state=job.state.value,
        progress=job.progress,
        total=job.total,
        message=job.message,
        generation=result.generation,
        dry_run=result.dry_run,
        report=None if result.report is None else ShadowBody.model_validate(result.report),
        missing=result.missing,
        missing_cases=[MissingBody(case_id=case_id, reason=reason) for case_id, reason in result.missing_cases],
        created_at=job.created_at,
        updated_at=job.updated_at,
    )
