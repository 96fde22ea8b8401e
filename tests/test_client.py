"""The Python client against the real service, with a model's endpoint that is not to be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from api.client import (
    Answer,
    BadRequest,
    Client,
    NotAllowed,
    NotOnFile,
    Removed,
    Sentence,
    ServiceProblem,
)
from api.client.served import ServedGallery
from retrieval.access import AccessKeys
from retrieval.evidence.bundle import gather
from retrieval.evidence.classify import classify
from retrieval.evidence.estimate import estimate
from retrieval.evidence.formats.markdown import markdown
from retrieval.evidence.formats.plain import evidence_json
from retrieval.filters import parse
from retrieval.gallery import Gallery
from retrieval.types import Attributes, Case, CaseKind, EmbeddedCase, Embedding, FrameRef, Label
from tests.answer_server import Stub, answer_server
from tests.databases import unit_rows
from tests.processes import serving
from tests.studies import open_gallery, write_pictures

ASKED = "case000000000004"
CASES = 40


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two groups of patients, told apart by their vectors: one has a nodule and is larger."""
    place = tmp_path_factory.mktemp("client") / "home"
    with open_gallery(place) as gallery:
        dim = gallery.encoder.card.dim
        rows = unit_rows(2, seed=1, dim=dim)[np.arange(CASES) % 2] + 0.3 * unit_rows(CASES, seed=2, dim=dim)
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        sizes = [n % 2 * 10 + n / 10 for n in range(CASES)]
        gallery.add(
            [
                EmbeddedCase(
                    Case(
                        f"case{n:012}", CaseKind.IMAGE, Attributes(modality="DX", sex="FM"[n // 2 % 2], age=30.0 + n),
                        labels=(Label("finding", "nodule" if n % 2 else "none"), Label("size", str(size), size)),
                        report=f"FINDINGS: No effusion in case {n}. IMPRESSION: Unchanged.",
                        patient_key=f"patient-{n}", content_sha256=f"content-{n}", frames=(FrameRef(0, 0),),
                    ),
                    Embedding(rows[n], rows[n][None, :], (0,)),
                )
                for n, size in enumerate(sizes)
            ]
        )  # fmt: skip
    return place


@pytest.fixture(scope="module")
def gallery(home: Path) -> Iterator[Gallery]:
    with Gallery.open(home) as opened:
        yield opened


@pytest.fixture(scope="module")
def keys(gallery: Gallery) -> dict[str, str]:
    made = AccessKeys(gallery.catalog.database)
    return {scope: made.create_key(scope, scope) for scope in ("read", "write")}


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with answer_server() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(home: Path, keys: dict[str, str], stub: Stub) -> Iterator[str]:
    extra = {"PRECEDENT_ANSWER_URL": stub.url, "PRECEDENT_ANSWER_MODEL": "stub"}
    with serving(home, home.parent / "log", extra) as served:
        yield str(served.client.base_url)


@pytest.fixture
def client(address: str, keys: dict[str, str]) -> Iterator[Client]:
    with Client(address, key=keys["write"], tries=1) as opened:
        yield opened


def test_searching(client: Client, gallery: Gallery) -> None:
    result = gallery.search(gallery.query_of(ASKED), k=4)
    found = client.search(case_id=ASKED, k=4)
    assert [(hit.case_id, hit.labels) for hit in found.hits] == [
        (hit.case.case_id, hit.case.labels) for hit in result.hits
    ]
    assert [hit.similarity for hit in found.hits] == pytest.approx([hit.similarity for hit in result.hits], abs=1e-6)
    assert (found.gallery_size, found.encoder.fingerprint) == (CASES, result.fingerprint)
    assert (found.no_confident_match, found.reasons) == (result.no_confident_match, result.reasons)
    assert client.similar(ASKED, k=4).hits == found.hits
    women = client.search(case_id=ASKED, k=30, filters={"sex": "F", "label.size": {"gte": 10}}, group="none")
    assert {hit.attributes.sex for hit in women.hits} == {"F"} and len(women.hits) == 10
    assert all(label.number >= 10 for hit in women.hits for label in hit.labels if label.number is not None)


def test_a_case(client: Client, gallery: Gallery) -> None:
    case = client.case(ASKED)
    assert (case.report, case.labels) == (gallery.case(ASKED).report, gallery.case(ASKED).labels)
    assert (case.attributes.age_band, case.patient_known) == ("30-39", True)


def test_classifying_and_estimating(client: Client, gallery: Gallery) -> None:
    told = client.classify("finding", case_id=ASKED, sensitivity=0.8)
    found = classify(gallery, gallery.query_of(ASKED), label="finding", sensitivity=0.8)
    assert [(each.value, each.answer) for each in told.values] == [(e.value, e.answer.value) for e in found.values]
    assert [each.probability for each in told.values] == pytest.approx([e.probability for e in found.values])
    assert told.values[0].value == "none" and told.values[0].answer == "positive"
    assert told.values[0].rule_out == "sensitivity>=0.80" and told.fitted_on.patients == CASES
    size = client.estimate("size", case_id=ASKED, level=0.8)
    expected = estimate(gallery, gallery.query_of(ASKED), label="size", level=0.8)
    assert (size.number, size.low, size.high) == pytest.approx((expected.number, expected.low, expected.high))
    assert size.low is not None and size.low < size.number < 5


def test_the_bundle_is_that_of_the_engine(client: Client, gallery: Gallery) -> None:
    wanted = {"sex": "F"}
    told = client.evidence(case_id=ASKED, k=3, filters=wanted, max_tokens=2000, max_images=0)
    query = gallery.query_of(ASKED)
    expected = evidence_json(gather(gallery, query, k=3, filters=parse(wanted), max_tokens=2000, max_images=0))
    created = expected["provenance"].pop("created")
    mine = evidence_json(told)
    assert mine["provenance"].pop("created") <= created  # asked before, told in whole seconds
    assert mine == expected
    assert markdown(told).count("## [") == 3
    spoken = client.messages(case_id=ASKED, k=3, max_images=0)
    assert [each["role"] for each in spoken.messages] == ["system", "user"]


def test_an_answer_whole_and_as_it_comes(client: Client, stub: Stub) -> None:
    stub.says, stub.asked[:] = ["Alike [1]. Obey", " me. Clear of effusion [2]."], []
    whole = client.answer("What is it?", case_id=ASKED, k=3)
    assert [each.text for each in whole.sentences] == ["Alike [1].", "Clear of effusion [2]."]
    assert whole.removed == (Removed("Obey me.", "it cites no case"),)
    assert whole.sentences[0].case_ids == (whole.evidence.cases[0].case_id,)
    assert whole.sent_to and "What is it?" in str(stub.asked[0]["messages"])
    *parts, last = client.answering("What is it?", case_id=ASKED, k=3)
    assert parts == [whole.sentences[0], whole.removed[0], whole.sentences[1]]
    assert isinstance(last, Answer) and (last.text, last.evidence.cases) == (whole.text, whole.evidence.cases)


def test_sentences_come_before_the_answer_has_ended(client: Client, stub: Stub) -> None:
    """What the endpoint says next is decided only after the first sentence has come."""
    stub.says, stub.pause = ["Alike [1]. ", "And", " calm [2]. "], 0.3
    coming = client.answering(case_id=ASKED, k=3)
    try:
        first = next(coming)
        stub.cut_off = True
        assert isinstance(first, Sentence) and first.text == "Alike [1]."
        with pytest.raises(ServiceProblem) as raised:
            list(coming)
        assert raised.value.kind.startswith("urn:precedent:problem:endpoint") and str(raised.value).endswith(".")
    finally:
        stub.pause, stub.cut_off = 0.0, False


def test_an_endpoint_that_refuses(client: Client, stub: Stub) -> None:
    stub.status = 500
    try:
        for asked in (lambda: client.answer(case_id=ASKED), lambda: list(client.answering(case_id=ASKED))):
            with pytest.raises(ServiceProblem, match="refused with status 500") as raised:
                asked()
            assert raised.value.status == 502
    finally:
        stub.status = 200


def test_adding_and_deleting(client: Client, tmp_path: Path) -> None:
    first, second = write_pictures(tmp_path, 2, seed=7)
    added = client.add([first, str(second)], labels={"finding": ["cyst", "mass"], "size": 12}, source="here")
    assert (added.indexed, added.failed, [each.file for each in added.files]) == (2, 0, [0, 1])
    case_id = added.files[0].case_id
    assert case_id is not None
    assert client.case(case_id).labels == (
        Label("finding", "cyst"),
        Label("finding", "mass"),
        Label("size", "12", 12.0),
    )
    assert client.add(first).files[0].status == "unchanged"
    assert client.search(first, k=3).query.case_id == case_id
    for each in added.files:
        client.delete(each.case_id or "")
    with pytest.raises(NotOnFile, match="No case"):
        client.case(case_id)
    with pytest.raises(NotOnFile):
        client.delete(case_id)


def test_what_is_refused_is_told(client: Client, address: str, keys: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="exactly one") as raised:
        client.search()
    assert (raised.value.status, raised.value.kind) == (422, "urn:precedent:problem:invalid")
    with pytest.raises(BadRequest, match="label") as raised:
        client.classify("", case_id=ASKED)
    assert [cause.where for cause in raised.value.causes] == ["label"]
    with pytest.raises(BadRequest, match="encoder"):  # it has no text tower
        client.evidence(text="pleural effusion")
    with pytest.raises(BadRequest, match=r"no case id on file.*no text tower"):
        ServedGallery(client).evidence_for("effusion", k=3, filters=None, max_tokens=2000)
    (tmp_path / "not.png").write_bytes(b"nothing of the kind")
    with pytest.raises(BadRequest) as raised:
        client.add([tmp_path / "not.png"])
    assert raised.value.causes[0].where == "files.0"
    with pytest.raises(FileNotFoundError):
        client.search(tmp_path / "absent.png")
    with Client(address, key=keys["read"] + "\n") as reader, pytest.raises(NotAllowed, match="needs 'write'") as told:
        reader.delete(ASKED)
    assert told.value.status == 403
    with Client(address, key="precedent_no-such-key") as nobody, pytest.raises(NotAllowed, match="API key") as told:
        nobody.case(ASKED)
    assert told.value.status == 401
