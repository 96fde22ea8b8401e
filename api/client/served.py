"""A service as what the retrievers of ``retrieval.integrations`` ask, in place of a gallery that is open here."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from api.client.client import Client
from api.client.problems import BadRequest, NotOnFile
from retrieval.evidence.cited import Evidence
from retrieval.filters import Filter, as_json
from retrieval.integrations.passages import NO_CASE

CASE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class ServedGallery:
    """``PrecedentRetriever(gallery=ServedGallery(client))``: the passages are those of the service's gallery."""

    client: Client

    def evidence_for(self, asked: str, *, k: int, filters: Filter | None, max_tokens: int) -> Evidence:
        """The bundle for a case id on file or, where there is no such case, a sentence; else a ServiceProblem."""
        wanted = None if filters is None else as_json(filters)
        bundle = partial(self.client.evidence, k=k, filters=wanted, max_tokens=max_tokens, max_images=0)
        word = CASE_ID.fullmatch(asked)  # which may be a sentence as well
        if word:
            with suppress(NotOnFile):
                return bundle(case_id=asked)
        try:
            return bundle(text=asked)
        except BadRequest as error:
            if not word:
                raise
            raise BadRequest(error.status, error.kind, f"{NO_CASE} {error}", error.causes) from error
