"""A small client of the service: ``pip install 'precedent[client]'``. It imports httpx and nothing of the engine.

with Client("http://127.0.0.1:8000") as client:
    for hit in client.similar(case_id).hits:
        print(hit.case_id, hit.similarity)
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

BUSY = (429, 503)
LONGEST_WAIT = 60.0  # seconds before one more try, whatever the service asks for

Json = Mapping[str, Any]


class ServiceProblem(Exception):
    """What the service answered in place of what was asked. ``str(problem)`` is its sentence; ``kind`` its type URN."""

    def __init__(self, status: int, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.kind = kind


class NotOnFile(ServiceProblem):
    """No such case (404)."""


class NotAllowed(ServiceProblem):
    """The key is missing, revoked, or of too narrow a scope (401, 403)."""


class BadRequest(ServiceProblem):
    """What was sent can't be understood or was refused (400, 409, 413, 415, 422)."""


class ServiceBusy(ServiceProblem):
    """Still busy after all tries (429, 503)."""


_KINDS: dict[int, type[ServiceProblem]] = {
    404: NotOnFile,
    **dict.fromkeys((401, 403), NotAllowed),
    **dict.fromkeys((400, 409, 413, 415, 422), BadRequest),
    **dict.fromkeys(BUSY, ServiceBusy),
}


@dataclass(frozen=True, slots=True)
class LabelValue:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class FoundCase:
    """One hit. ``similarity``: cosine; ``percentile``: share, 0 to 100, of random pairs that are less similar."""

    rank: int
    case_id: str
    kind: str
    similarity: float
    percentile: float
    labels: tuple[LabelValue, ...]
    report_excerpt: str
    modality: str
    source: str
    thumbnail_url: str
    viewer_url: str


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Hits, best first. ``reasons``: why there is no confident match, as sentences. ``answer``: all that was sent."""

    hits: tuple[FoundCase, ...]
    no_confident_match: bool
    reasons: tuple[str, ...]
    cautions: tuple[str, ...]
    fingerprint: str
    gallery_size: int
    intended_use: str
    answer: Json


@dataclass(frozen=True, slots=True)
class CaseOnFile:
    """A case. ``answer``: all that was sent."""

    case_id: str
    kind: str
    labels: tuple[LabelValue, ...]
    report: str
    answer: Json


class Client:
    """A service by its address. Safe to use from several threads; ``tries`` counts the first one."""

    def __init__(self, address: str, *, key: str = "", timeout: float = 60, tries: int = 4) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout)
        self._tries = tries

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def search(
        self, files: Sequence[Path] = (), *, case_id: str = "", text: str = "", k: int = 10, filters: Json | None = None
    ) -> SearchAnswer:
        """The cases most like an image or series, a case on file, a sentence, or an image and a sentence."""
        return _search(self._ask("/v1/search", files, case_id=case_id, text=text, k=k, filters=filters))

    def similar(self, case_id: str, *, k: int = 10) -> SearchAnswer:
        """The cases most like one on file."""
        return _search(self._send("GET", f"/v1/cases/{case_id}/similar", params={"k": k}))

    def case(self, case_id: str) -> CaseOnFile:
        """One case; NotOnFile when there is none."""
        told = self._send("GET", f"/v1/cases/{case_id}")
        return CaseOnFile(told["case_id"], told["kind"], _labels(told), told["report"], told)

    def classify(self, label: str, files: Sequence[Path] = (), *, case_id: str = "", **more: Any) -> Json:
        """A probability for each value of a label, as docs/http.md describes; ``more``: other fields of the form."""
        return self._ask("/v1/classify", files, label=label, case_id=case_id, **more)

    def estimate(self, label: str, files: Sequence[Path] = (), *, case_id: str = "", **more: Any) -> Json:
        """A number with its interval, as docs/http.md describes."""
        return self._ask("/v1/estimate", files, label=label, case_id=case_id, **more)

    def evidence(self, files: Sequence[Path] = (), *, case_id: str = "", text: str = "", **more: Any) -> Json:
        """The bundle, as docs/http.md describes."""
        return self._ask("/v1/evidence", files, case_id=case_id, text=text, format="json", **more)

    def answer(self, question: str, files: Sequence[Path] = (), *, case_id: str = "", **more: Any) -> Json:
        """An answer with citations, by the model the service is configured with."""
        return self._ask("/v1/answer", files, question=question, case_id=case_id, **more)

    def add(self, files: Sequence[Path]) -> Json:
        """Index files; what became of each. Needs the scope "write"."""
        return self._ask("/v1/cases", files)

    def delete(self, case_id: str) -> None:
        """Delete a case for good; NotOnFile when there is none. Needs the scope "write"."""
        self._send("DELETE", f"/v1/cases/{case_id}")

    def _ask(self, path: str, files: Sequence[Path], **fields: Any) -> Json:
        """A form, its files read anew at each try; fields that are None or "" are left to the service."""
        stated = {
            name: json.dumps(value) if isinstance(value, Mapping | bool) else str(value)
            for name, value in fields.items()
            if value not in (None, "")
        }
        return self._send("POST", path, stated, files)

    def _send(
        self, method: str, path: str, fields: Json | None = None, files: Sequence[Path] = (), **more: Any
    ) -> Json:
        for left in range(self._tries - 1, -1, -1):
            with ExitStack() as stack:
                parts = [("files", (file.name, stack.enter_context(file.open("rb")))) for file in files]
                reply = self._http.request(method, path, data=fields, files=parts or None, **more)
            if reply.status_code in BUSY and left:
                time.sleep(_wait(reply.headers.get("Retry-After", "")))
                continue
            break
        if reply.is_success:
            told: Json = reply.json()
            return told
        raise _problem(reply)


def _wait(stated: str) -> float:
    """Seconds to wait by a Retry-After header (RFC 9110 10.2.3: seconds or a date); 1 where it says nothing."""
    try:
        seconds = float(stated) if stated.isdigit() else parsedate_to_datetime(stated).timestamp() - time.time()
    except ValueError:
        seconds = 1.0
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _problem(reply: httpx.Response) -> ServiceProblem:
    try:
        told = reply.json()
        kind, sentence = str(told["type"]), str(told["detail"])
    except (ValueError, KeyError, TypeError):
        kind, sentence = "", f"The service answered {reply.status_code} without a sentence: is it Precedent?"
    return _KINDS.get(reply.status_code, ServiceProblem)(reply.status_code, kind, sentence)


def _labels(told: Json) -> tuple[LabelValue, ...]:
    return tuple(LabelValue(each["name"], each["value"]) for each in told["labels"])


def _search(told: Json) -> SearchAnswer:
    plain = ("rank", "case_id", "kind", "similarity", "percentile", "report_excerpt", "modality", "source")
    urls = ("thumbnail_url", "viewer_url")
    return SearchAnswer(
        hits=tuple(
            FoundCase(labels=_labels(hit), **{name: hit[name] for name in (*plain, *urls)}) for hit in told["hits"]
        ),
        no_confident_match=told["no_confident_match"],
        reasons=tuple(told["reasons"]),
        cautions=tuple(told["cautions"]),
        fingerprint=told["encoder"]["fingerprint"],
        gallery_size=told["gallery_size"],
        intended_use=told["intended_use"],
        answer=told,
    )
