"""The client itself: one method for each thing that the service can be asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self, Unpack
from urllib.parse import quote

from api.client.answered import Added, Answer, Messages, Removed, Sentence
from api.client.asked import BundleQuery, ClassifyQuery, EstimateQuery, Labels, SearchQuery
from api.client.found import CaseOnFile, SearchAnswer
from api.client.judged import ClassifyAnswer, EstimateAnswer
from api.client.transport import Files, Transport
from retrieval.evidence.cited import Evidence

Judged = Sentence | Removed | Answer

EVENTS: Mapping[str, type[Judged]] = {"sentence": Sentence, "removed": Removed, "done": Answer}


class Client:
    """A service by its address. Safe to use from several threads; close it, or use it in ``with``.

    ``timeout``: seconds without a sign of the service. ``tries``: how often a busy one is asked, the first included.
    The keywords of a query are those of ``api.client.asked``. Every method raises a ServiceProblem, with a sentence,
    when it is not answered with what it asked for.
    """

    def __init__(self, address: str, *, key: str = "", timeout: float = 60, tries: int = 4) -> None:
        self._service = Transport(address, key=key, timeout=timeout, tries=tries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._service.close()

    def search(self, files: Files = (), **asked: Unpack[SearchQuery]) -> SearchAnswer:
        """The cases most like the query."""
        return self._service.ask(SearchAnswer, "/v1/search", asked, files)

    def similar(self, case_id: str, *, k: int | None = None) -> SearchAnswer:
        """The cases most like one on file; NotOnFile when there is none."""
        return self._service.get(SearchAnswer, f"{_case(case_id)}/similar", {"k": k})

    def case(self, case_id: str) -> CaseOnFile:
        """One case; NotOnFile when there is none."""
        return self._service.get(CaseOnFile, _case(case_id))

    def classify(self, label: str, files: Files = (), **asked: Unpack[ClassifyQuery]) -> ClassifyAnswer:
        """A calibrated probability for each value of a label, and what it says at the operating points asked for."""
        return self._service.ask(ClassifyAnswer, "/v1/classify", {**asked, "label": label}, files)

    def estimate(self, label: str, files: Files = (), **asked: Unpack[EstimateQuery]) -> EstimateAnswer:
        """A number for a numeric label, with a prediction interval."""
        return self._service.ask(EstimateAnswer, "/v1/estimate", {**asked, "label": label}, files)

    def evidence(self, files: Files = (), **asked: Unpack[BundleQuery]) -> Evidence:
        """The bundle: the very noun of the engine, so what takes one there, as its markdown, takes this one."""
        return self._service.ask(Evidence, "/v1/evidence", {**asked, "format": "json"}, files)

    def messages(self, files: Files = (), **asked: Unpack[BundleQuery]) -> Messages:
        """The bundle as messages for a chat model of your own, pictures included."""
        return self._service.ask(Messages, "/v1/evidence", {**asked, "format": "messages"}, files)

    def answer(self, question: str = "", files: Files = (), **asked: Unpack[BundleQuery]) -> Answer:
        """An answer by the model the service is configured with, every sentence of which cites cases."""
        return self._service.ask(Answer, "/v1/answer", {**asked, "question": question}, files)

    def answering(self, question: str = "", files: Files = (), **asked: Unpack[BundleQuery]) -> Iterator[Judged]:
        """The sentences of such an answer as soon as each is checked, those taken out too, and the whole at the end.

        The service is asked when the first one is taken; what goes wrong on the way is raised at its place.
        """
        return self._service.stream(EVENTS, "/v1/answer", {**asked, "question": question, "stream": True}, files)

    def add(self, files: Files, *, labels: Labels | None = None, source: str = "") -> Added:
        """Index files, all under the same labels; what became of each. Needs a key of the scope write.

        BadRequest, with a cause for each file, when none of them could be used.
        """
        told = "" if labels is None else json.dumps(labels)
        return self._service.ask(Added, "/v1/cases", {"labels": told, "source": source}, files)

    def delete(self, case_id: str) -> None:
        """Delete a case for good; NotOnFile when there is none. Needs a key of the scope write."""
        self._service.delete(_case(case_id))


def _case(case_id: str) -> str:
    return f"/v1/cases/{quote(case_id, safe='')}"
