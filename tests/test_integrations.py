"""LangChain, LlamaIndex and MCP, each by its real library, over one gallery and one bundle."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.errors import UsageError
from retrieval.gallery import Gallery
from retrieval.integrations.passages import find_passages
from retrieval.types import Case, CaseKind, EmbeddedCase, Embedding, Label
from tests.databases import unit_rows
from tests.processes import environment
from tests.studies import open_gallery, write_pictures


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of 30 cases of 15 patients, two groups of them alike."""
    place = tmp_path_factory.mktemp("integrations")
    with open_gallery(place / "home") as gallery:
        dim = gallery.encoder.card.dim
        centres = unit_rows(2, seed=1, dim=dim)
        rows = centres[np.arange(30) % 2] + 0.02 * unit_rows(30, seed=2, dim=dim)
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        gallery.add(
            [
                EmbeddedCase(
                    Case(
                        f"case{n:012}",
                        CaseKind.IMAGE,
                        labels=(Label("finding", "nodule" if n % 2 else "none seen"),),
                        report=f"FINDINGS: No effusion in case {n}. IMPRESSION: Unchanged.",
                        patient_key=f"secret-patient-{n // 2}",
                        content_sha256=f"content-{n}",
                    ),
                    Embedding(rows[n], rows[n][None, :], (0,)),
                )
                for n in range(30)
            ]
        )
    return place / "home"


@pytest.fixture(scope="module")
def gallery(home: Path) -> Iterator[Gallery]:
    with Gallery.open(home) as opened:
        yield opened


ASKED = "case000000000004"


def expected(gallery: Gallery, k: int) -> list[tuple[str, float]]:
    """The most similar cases of other patients, one of each, by NumPy."""
    cases = gallery.catalog.list_cases()
    rows = np.stack([gallery.catalog.embedding(case.case_id)[1].vector for case in cases]).astype(np.float64)
    own = next(n for n, case in enumerate(cases) if case.case_id == ASKED)
    seen, found = {cases[own].patient_key}, []
    for n in np.argsort(-(rows @ rows[own])):
        if cases[n].patient_key not in seen:
            seen.add(cases[n].patient_key)
            found.append((cases[n].case_id, float(rows[n] @ rows[own])))
    return found[:k]


def test_langchain_documents_can_be_cited(gallery: Gallery) -> None:
    from retrieval.integrations.langchain import PrecedentRetriever

    documents = PrecedentRetriever(gallery=gallery, k=5).invoke(ASKED)
    assert [each.id for each in documents] == [case_id for case_id, _ in expected(gallery, 5)]
    for each, (case_id, similarity) in zip(documents, expected(gallery, 5), strict=True):
        assert each.metadata["case_id"] == case_id
        assert each.metadata["similarity"] == pytest.approx(similarity, abs=1e-5)
        assert each.metadata["labels"] == [{"name": "finding", "value": "none seen"}]
        assert "No effusion" in each.page_content and "secret-patient" not in str(each)
        assert isinstance(each.metadata["no_confident_match"], bool)


def test_llama_index_nodes_can_be_cited(gallery: Gallery) -> None:
    from retrieval.integrations.llama_index import PrecedentRetriever

    nodes = PrecedentRetriever(gallery, k=5).retrieve(ASKED)
    assert [each.node.node_id for each in nodes] == [case_id for case_id, _ in expected(gallery, 5)]
    assert [each.score for each in nodes] == pytest.approx([s for _, s in expected(gallery, 5)], abs=1e-5)
    assert "No effusion" in nodes[0].get_content()


def test_what_is_neither_a_case_nor_a_sentence_is_told(gallery: Gallery) -> None:
    with pytest.raises(UsageError, match=r"no case id on file.*no text tower"):
        find_passages(gallery, "case000000000099", k=3)


def test_every_passage_says_when_there_is_no_confident_match(gallery: Gallery) -> None:
    found = find_passages(gallery, ASKED, k=3)
    assert found
    for each in found:
        assert ("Not a confident match" in each.text) == each.metadata["no_confident_match"]


def test_mcp_over_stdio_with_the_sdks_own_client(gallery: Gallery, home: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 1)
    (picture,) = [path for path in (tmp_path / "pictures").rglob("*") if path.is_file()]
    told = asyncio.run(_talk(home, picture))
    assert told["tools"] == {"search_similar_cases", "get_case", "get_evidence", "compare_cases"}
    found = told["found"].structured_content
    assert [hit["case"]["case_id"] for hit in found["hits"]] == [case_id for case_id, _ in expected(gallery, 5)]
    assert told["case"].structured_content["labels"] == [{"name": "finding", "value": "none seen"}]
    assert len(told["evidence"].structured_content["cases"]) == 5
    compared = told["compared"].structured_content
    assert compared["same_patient"] is True and compared["shared_labels"] == []
    assert told["by_file"].structured_content["hits"]
    for name, sentence in (("missing", "No case nowhere"), ("both", "exactly one of")):
        assert told[name].is_error and sentence in told[name].content[0].text
    assert "secret-patient" not in str(told)


async def _talk(home: Path, picture: Path) -> dict[str, Any]:
    from mcp import Client, StdioServerParameters

    command = StdioServerParameters(
        command=sys.executable, args=["-c", "from indexer.cli import main; main()", "mcp"], env=environment(home)
    )
    async with Client(command) as client:
        return {
            "tools": {tool.name for tool in (await client.list_tools()).tools},
            "found": await client.call_tool("search_similar_cases", {"case_id": ASKED, "k": 5}),
            "case": await client.call_tool("get_case", {"case_id": ASKED}),
            "evidence": await client.call_tool("get_evidence", {"case_id": ASKED, "k": 5}),
            "compared": await client.call_tool("compare_cases", {"first": ASKED, "second": "case000000000005"}),
            "by_file": await client.call_tool("search_similar_cases", {"path": str(picture)}),
            "missing": await client.call_tool("get_case", {"case_id": "nowhere"}),
            "both": await client.call_tool("get_evidence", {"case_id": ASKED, "path": str(picture)}),
        }
