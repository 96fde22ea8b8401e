"""A LangChain retriever over a gallery, open here or served: ``pip install 'precedent[langchain]'``."""

from __future__ import annotations

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, SkipValidation

from retrieval.gallery import Gallery
from retrieval.integrations.passages import EvidenceSource, Wanted, find_passages


class PrecedentRetriever(BaseRetriever):
    """Asked with a case id on file or, with a text encoder, a sentence; answers with cases of other patients.

    A document's ``id`` is the case id to cite; ``metadata`` has similarity, labels, and whether the match is confident.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    gallery: Gallery | EvidenceSource
    k: int = 8
    filters: SkipValidation[Wanted] = None  # read when it is asked, with a sentence for what can't be
    max_tokens: int = 4000

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        found = find_passages(self.gallery, query, k=self.k, filters=self.filters, max_tokens=self.max_tokens)
        return [Document(id=each.case_id, page_content=each.text, metadata=each.metadata) for each in found]
