"""Text, and image with text, over a real gallery: exact, with every promise of a search by image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from indexer import rebuild
from indexer.cli.hits import print_result
from indexer.query import read_query
from indexer.sandbox import Sandbox
from retrieval.errors import UsageError
from retrieval.filters import parse
from retrieval.gallery import Gallery
from retrieval.types import Fusion, GroupBy, Query, SamePatient, SearchResult, Yardstick
from tests.api_client import parts, served
from tests.encoder_files import make_open_clip
from tests.studies import index_all, open_gallery, write_pictures
from tests.test_cli import answer, precedent
from tests.test_gallery import fill

SENTENCE = "a nodule in the upper lobe."


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An encoder with both towers and random weights."""
    return f"open_clip:local-dir:{make_open_clip(tmp_path_factory.mktemp('clip'))}"


@pytest.fixture(scope="module", params=["delta", "faiss"])
def gallery(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, clip: str) -> Iterator[Gallery]:
    """200 generated cases, three to a patient; in a compressed index with a delta, or in the delta alone."""
    with open_gallery(tmp_path_factory.mktemp("home"), encoder=clip) as opened:
        fill(opened, 160)
        if request.param == "faiss":
            rebuild.rebuild(opened, backend="faiss")
        fill(opened, 40, seed=1)
        yield opened


def rows_of(gallery: Gallery) -> np.ndarray:
    return np.concatenate([rows for _, rows in gallery.catalog.vectors(0)])


def patients() -> np.ndarray:
    return np.array([f"patient{n // 3}" for n in [*range(160), *range(40)]])


def oracle(gallery: Gallery, query: Query, weight: float, fusion: Fusion, allowed: np.ndarray, k: int) -> list[int]:
    """Rank everything by hand; the best of each patient."""
    rows = rows_of(gallery).astype(np.float64)
    image, text = query.embedding.vector.astype(np.float64), gallery.embed_text(SENTENCE).vector.astype(np.float64)
    if fusion is Fusion.SUM:
        score = rows @ ((1 - weight) * image + weight * text)
    else:
        by_image, by_text = (
            {n: place for place, n in enumerate(sorted(np.flatnonzero(allowed), key=lambda n: -(rows[n] @ side)), 1)}
            for side in (image, text)
        )
        score = np.array(
            [
                (1 - weight) / (60 + by_image[n]) + weight / (60 + by_text[n]) if allowed[n] else -1
                for n in range(len(rows))
            ]
        )
    found: list[int] = []
    for n in np.argsort(-score, kind="stable").tolist():
        if allowed[n] and patients()[n] not in patients()[found]:
            found.append(n)
    return found[:k]


@pytest.mark.parametrize("fusion", list(Fusion))
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_a_composed_search_is_exact_under_filter_exclusion_and_grouping(
    gallery: Gallery, fusion: Fusion, weight: float
) -> None:
    query = gallery.query_of("case0-00007")
    asked = gallery.with_text(query, SENTENCE, weight=weight, fusion=fusion)
    allowed = (patients() != "patient2") & np.array([n % 4 != 0 for n in [*range(160), *range(40)]])
    found = gallery.search(asked, k=15, filters=parse({"modality": "CT"}))
    assert [hit.case.key - 1 for hit in found.hits] == oracle(gallery, query, weight, fusion, allowed, 15)
    assert found.exhaustive and found.composition is not None
    assert (found.composition.fusion, found.composition.text_weight) == (fusion, weight)
    text = gallery.embed_text(SENTENCE).vector
    for hit in found.hits:
        row = rows_of(gallery)[hit.case.key - 1]
        assert hit.parts is not None
        assert hit.parts.image_similarity == pytest.approx(row @ query.embedding.vector, abs=1e-5)
        assert hit.parts.text_similarity == pytest.approx(row @ text, abs=1e-5)
        assert (hit.parts.score is not None) is (fusion is Fusion.RRF)
    if fusion is Fusion.RRF:
        assert found.candidates == allowed.sum()  # every case that may be returned was ranked, in both lists
        assert found.plan == "exact-ranks"


@pytest.mark.parametrize("fusion", list(Fusion))
def test_patients_groups_and_the_query_itself(gallery: Gallery, fusion: Fusion) -> None:
    asked = gallery.with_text(gallery.query_of("case0-00004"), SENTENCE, fusion=fusion)

    def ids(same_patient: SamePatient, group: GroupBy = GroupBy.NONE) -> list[str]:
        found: SearchResult = gallery.search(asked, k=1000, same_patient=same_patient, group=group)
        return [hit.case.case_id for hit in found.hits]

    assert {"case0-00003", "case0-00005"} <= set(ids(SamePatient.ONLY))
    assert "case0-00004" not in ids(SamePatient.INCLUDE) and len(ids(SamePatient.INCLUDE)) == 199
    left = ids(SamePatient.EXCLUDE)
    assert not set(left) & set(ids(SamePatient.ONLY)) and len(left) + len(ids(SamePatient.ONLY)) == 199
    grouped = gallery.search(asked, k=1000)
    keys = [hit.case.patient_key for hit in grouped.hits]
    assert len(set(keys)) == len(keys) and "patient1" not in keys
    assert [hit.rank for hit in grouped.hits] == list(range(1, len(keys) + 1))


def test_the_ends_of_the_weight_are_the_parts(gallery: Gallery) -> None:
    image = gallery.query_of("case0-00010")
    for fusion in Fusion:
        alone = [hit.case.case_id for hit in gallery.search(image, k=20).hits]
        none = gallery.search(gallery.with_text(image, SENTENCE, weight=0.0, fusion=fusion), k=20)
        assert [hit.case.case_id for hit in none.hits] == alone and none.yardstick is Yardstick.CASES
    text = gallery.search(gallery.text_query(SENTENCE), k=200, group=GroupBy.NONE)
    whole = gallery.search(gallery.with_text(image, SENTENCE, weight=1.0), k=200, group=GroupBy.NONE)
    own = {f"case0-{n:05d}" for n in (9, 10, 11)} | {f"case1-{n:05d}" for n in (9, 10, 11)}
    left = [hit.case.case_id for hit in text.hits if hit.case.case_id not in own]
    assert [hit.case.case_id for hit in whole.hits] == left


def test_rerank_goes_with_a_sum_and_not_with_ranks(gallery: Gallery) -> None:
    query = gallery.query_of("case0-00004")
    summed = gallery.search(gallery.with_text(query, SENTENCE, weight=0.4), rerank=True)
    assert [hit.similarity for hit in summed.hits] == sorted((hit.similarity for hit in summed.hits), reverse=True)
    with pytest.raises(UsageError, match="fusion=sum"):
        gallery.search(gallery.with_text(query, SENTENCE, fusion=Fusion.RRF), rerank=True)


def test_a_sentence_is_judged_by_sentences(gallery: Gallery) -> None:
    """Cosines of text and image lie near zero here; against pairs of images none of them would say anything."""
    found = gallery.search(gallery.text_query(SENTENCE), k=200, group=GroupBy.NONE)
    assert found.yardstick is Yardstick.SENTENCES and found.composition is None
    assert all(hit.parts is None for hit in found.hits)
    percentiles = [hit.percentile for hit in found.hits]
    assert percentiles == sorted(percentiles, reverse=True)
    assert percentiles[0] > 90 and percentiles[-1] < 10
    composed = gallery.search(gallery.with_text(gallery.query_of("case0-00004"), SENTENCE, weight=0.3))
    assert composed.yardstick is Yardstick.COMPOSED


def test_an_encoder_without_text_names_those_with_it(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as opened:
        fill(opened, 3)
        for ask in (
            lambda: opened.text_query(SENTENCE),
            lambda: opened.with_text(opened.query_of("case0-00001"), SENTENCE),
        ):
            with pytest.raises(UsageError, match=r"no text tower.*BiomedCLIP"):
                ask()


# the same over HTTP


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, clip: str, sandbox: Sandbox) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("http")
    write_pictures(folder / "in", 8)
    with open_gallery(folder / "home", encoder=clip) as opened:
        index_all(opened, sandbox, folder / "in")
    with served(folder / "home") as opened:
        yield opened


def test_a_file_and_a_sentence_over_http(client: TestClient, tmp_path: Path) -> None:
    files = parts(write_pictures(tmp_path, 1, seed=5))
    answers = {}
    for fusion in ("sum", "rrf"):
        asked = {"text": SENTENCE, "text_weight": "0.3", "fusion": fusion, "k": "8"}
        reply = client.post("/v1/search", files=files, data=asked)
        assert reply.status_code == 200, reply.text
        answers[fusion] = reply.json()
        told = answers[fusion]["composition"]
        assert (told["fusion"], told["text_weight"]) == (fusion, 0.3) and "30%" in told["told"]
        assert answers[fusion]["query"]["kind"] == "image" and len(answers[fusion]["hits"]) == 8
    assert answers["sum"]["hits"][0]["parts"]["score"] is None
    scores = [hit["parts"]["score"] for hit in answers["rrf"]["hits"]]
    assert scores == sorted(scores, reverse=True) and scores[0] <= 1 / 61 + 1e-12
    assert {hit["parts"]["image_rank"] for hit in answers["rrf"]["hits"]} == set(range(1, 9))
    alone = client.post("/v1/search", data={"text": SENTENCE}).json()
    assert alone["query"]["kind"] == "text" and alone["composition"] is None
    assert "sentence" in alone["yardstick"]


def test_a_case_and_a_sentence_over_http(client: TestClient) -> None:
    case_id = client.get("/v1/cases").json()["cases"][0]["case_id"]
    asked = {"case_id": case_id, "text": SENTENCE}
    answer = client.post("/v1/search", data=asked | {"filters": json.dumps({"kind": "image"})}).json()
    assert answer["composition"]["text_weight"] == 0.5
    assert case_id not in {hit["case_id"] for hit in answer["hits"]}
    refused = client.post("/v1/search", data=asked | {"fusion": "rrf", "rerank": "true"})
    assert refused.status_code == 400 and "fusion=sum" in refused.json()["detail"]


# and on the command line


def test_a_file_and_a_sentence_on_the_command_line(
    tmp_path: Path, clip: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "in", 5)
    home = tmp_path / "home"
    with open_gallery(home, encoder=clip) as opened:
        index_all(opened, sandbox, tmp_path / "in")
        (asked,) = write_pictures(tmp_path / "q", 1, seed=6)
        query = opened.with_text(read_query(opened, sandbox, [asked]).query, SENTENCE, weight=0.3, fusion=Fusion.RRF)
        want = opened.search(query, k=3)
    words = ("--text", SENTENCE, "--text-weight", "0.3", "--fusion", "rrf", "-k", "3")
    told = answer("search", asked, *words, home=home)
    assert [hit["case_id"] for hit in told["hits"]] == [hit.case.case_id for hit in want.hits]
    assert told["composition"] == {"fusion": "rrf", "text_weight": 0.3}
    assert [hit["parts"]["score"] for hit in told["hits"]] == [hit.parts.score for hit in want.hits if hit.parts]
    print_result(want)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Ordered by reciprocal rank" in shown and "counting 30%" in shown and "#1+#" in shown
    for wrong, why in (
        (("search", asked, "--text-weight", "0.3"), "give a file and --text"),
        (("search", "--text", "a nodule", "--fusion", "rrf"), "give a file and --text"),
        (("search", "--text", "  "), "Expected either"),
    ):
        assert why in precedent(*wrong, home=home, code=2).stderr
