"""Erasing a patient."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from api.access import Admin
from api.problems import responses
from api.schemas import Deleted
from indexer.intake import delete_cases
from retrieval.errors import NotFoundError

router = APIRouter(prefix="/v1", tags=["patients"])


@router.delete("/patients/{key}", response_model=Deleted, responses=responses(404, 507))
def delete_patient(caller: Admin, key: Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]) -> Deleted:
    """Delete every case of one patient, named by pseudonym."""
    gallery = caller.service.gallery
    cases = gallery.catalog.cases(gallery.catalog.keys_of_patient(key))
    gone = delete_cases(gallery, [case.case_id for case in cases.values()])
    if not gone:
        raise NotFoundError("No case of that patient is on file.")
    return Deleted(deleted=gone)
