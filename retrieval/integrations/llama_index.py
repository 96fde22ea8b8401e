"""A LlamaIndex retriever over a gallery, open here or served: ``pip install 'precedent[llama-index]'``."""

from __future__ import annotations

import asyncio

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from retrieval.gallery import Gallery
from retrieval.integrations.passages import EvidenceSource, Wanted, find_passages


class PrecedentRetriever(BaseRetriever):
    """Asked with a case id on file or, with a text encoder, a sentence; answers with cases of other patients.

    A node's id is the case id to cite, its score the similarity; ``metadata`` has labels, and whether the match is
    confident.
    """

    def __init__(
        self, gallery: Gallery | EvidenceSource, *, k: int = 8, filters: Wanted = None, max_tokens: int = 4000
    ) -> None:
        super().__init__()
        self._gallery = gallery
        self._k = k
        self._filters = filters
        self._max_tokens = max_tokens

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        asked = query_bundle.query_str
        found = find_passages(self._gallery, asked, k=self._k, filters=self._filters, max_tokens=self._max_tokens)
        return [
            NodeWithScore(
                node=TextNode(id_=each.case_id, text=each.text, metadata=each.metadata), score=each.similarity
            )
            for each in found
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)  # the library would block its loop
