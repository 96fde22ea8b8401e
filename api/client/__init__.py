"""A small client of the service: ``pip install 'precedent[client]'``.

with Client("http://127.0.0.1:8000") as client:
    for hit in client.similar(case_id).hits:
        print(hit.case_id, hit.similarity)

It imports httpx, NumPy and the nouns of a bundle, and nothing else of the engine. What it answers with are frozen
dataclasses under the names of docs/http.md; what the service refuses is raised as a ServiceProblem with its sentence.
"""

from __future__ import annotations

from api.client.answered import Added, Answer, FileStatus, Messages, Removed, Sentence
from api.client.client import Client
from api.client.found import CaseOnFile, FoundCase, SearchAnswer
from api.client.judged import ClassifyAnswer, EstimateAnswer, OperatingPoint, ValueAnswer
from api.client.problems import BadRequest, Cause, NotAllowed, NotOnFile, ServiceBusy, ServiceProblem, Unreachable
from retrieval.evidence.cited import CitedCase, Evidence

__all__ = [
    "Added",
    "Answer",
    "BadRequest",
    "CaseOnFile",
    "Cause",
    "CitedCase",
    "ClassifyAnswer",
    "Client",
    "EstimateAnswer",
    "Evidence",
    "FileStatus",
    "FoundCase",
    "Messages",
    "NotAllowed",
    "NotOnFile",
    "OperatingPoint",
    "Removed",
    "SearchAnswer",
    "Sentence",
    "ServiceBusy",
    "ServiceProblem",
    "Unreachable",
    "ValueAnswer",
]
