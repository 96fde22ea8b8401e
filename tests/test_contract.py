"""The MedImageInsights service contract, spoken by a script that knows nothing of ours, to a real server."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from indexer.query import read_query
from indexer.sandbox import Sandbox
from retrieval.gallery import Gallery
from retrieval.prompts import NEUTRAL
from retrieval.settings import Settings
from tests.contract_client import MedImageInsightsClient
from tests.contract_files import make_home, packed, png, vectors
from tests.encoder_files import scene
from tests.studies import write_series
from tests.test_api_server import running

LABELS = ["pneumonia", "fracture", "no finding"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("contract"))


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[MedImageInsightsClient]:
    with running(Settings(home=home, workers=2)) as server:
        yield MedImageInsightsClient(server.url)


def test_health_is_the_very_bytes_of_the_contract(client: MedImageInsightsClient) -> None:
    reply = client.health()
    assert (reply.status, reply.body) == (200, b'{"status":"healthy"}')
    assert reply.headers["content-type"] == "application/json"


def test_encode_gives_unit_vectors_in_the_order_asked(client: MedImageInsightsClient) -> None:
    reply = client.encode([png(0), png(1)], ["a chest radiograph.", "a knee.", "a hand."])
    answer = reply.json()
    assert list(answer) == ["image_embeddings", "text_embeddings"]
    images, texts = np.array(answer["image_embeddings"]), np.array(answer["text_embeddings"])
    assert images.shape == (2, 32) and texts.shape == (3, 32)
    assert np.allclose(np.linalg.norm(np.concatenate([images, texts]), axis=1), 1, atol=1e-5)
    assert np.allclose(vectors(client, png(1))[0], images[1], atol=1e-5)
    only = client.encode(texts=["a knee."]).json()
    assert only["image_embeddings"] is None and np.allclose(only["text_embeddings"][0], texts[1], atol=1e-5)


def test_a_file_has_the_vector_that_the_gallery_would_store(
    client: MedImageInsightsClient, home: Path, sandbox: Sandbox, tmp_path: Path
) -> None:
    slices = write_series(tmp_path / "s", 3, seed=4)
    (tmp_path / "p.png").write_bytes(png(5))
    with Gallery.open(home) as gallery:
        stored = [
            read_query(gallery, sandbox, [path]).query.embedding.vector for path in (slices[1], tmp_path / "p.png")
        ]
    assert np.allclose(vectors(client, slices[1].read_bytes(), png(5)), stored, atol=1e-5)


def test_the_same_request_has_the_same_bytes_for_an_answer(client: MedImageInsightsClient) -> None:
    for ask in (
        lambda: client.encode([png(2)], ["a nodule."]),
        lambda: client.predict([png(2), png(3)], LABELS),
        lambda: client.predict([png(2)], LABELS, multilabel=True),
    ):
        first = ask()
        assert first.status == 200 and all(ask().body == first.body for _ in range(3))


def test_predict_is_the_softmax_over_prompts_most_probable_first(client: MedImageInsightsClient) -> None:
    answer = client.predict([png(0), png(1)], LABELS).json()
    assert list(answer) == ["predictions"] and len(answer["predictions"]) == 2
    texts = np.array(client.encode(texts=[f"{label}." for label in LABELS]).json()["text_embeddings"])
    scale = math.exp(math.log(1 / 0.07))  # what open_clip starts its models with
    for image, told in zip(vectors(client, png(0), png(1)), answer["predictions"], strict=True):
        powers = np.exp(scale * (texts @ image))
        want = dict(zip(LABELS, powers / powers.sum(), strict=True))
        assert list(told) == sorted(want, key=lambda label: -want[label])
        assert told == pytest.approx(want, abs=1e-5)


def test_multilabel_asks_each_label_against_neutral_prompts(client: MedImageInsightsClient) -> None:
    (told,) = client.predict([png(0)], LABELS, multilabel=True).json()["predictions"]
    named = np.array(client.encode(texts=[f"{label}." for label in LABELS]).json()["text_embeddings"])
    neutral = np.array(client.encode(texts=list(NEUTRAL)).json()["text_embeddings"])
    (image,) = vectors(client, png(0))
    odds = np.exp(named @ image / 0.07) / np.exp(neutral @ image / 0.07).mean()
    want = dict(zip(LABELS, odds / (1 + odds), strict=True))
    assert told == pytest.approx(want, abs=1e-5)
    assert list(told) == sorted(want, key=lambda label: -want[label])
    (alone,) = client.predict([png(0)], LABELS[:1], multilabel=True).json()["predictions"]
    assert alone == pytest.approx({LABELS[0]: told[LABELS[0]]}, abs=1e-6)


def modes() -> dict[str, bytes]:
    grey = Picture.fromarray(scene(seed=1))
    colour = Picture.merge("RGB", [grey, grey.transpose(Picture.Transpose.ROTATE_180), grey])
    deep = np.asarray(grey).astype(np.uint16) * 200
    return {
        "1": packed(grey.convert("1"), "PNG"),
        "L": packed(grey, "PNG"),
        "LA": packed(grey.convert("LA"), "PNG"),
        "P": packed(colour.convert("P"), "PNG"),
        "P transparent": packed(colour.convert("P"), "PNG", transparency=3),
        "RGB": packed(colour, "PNG"),
        "RGBA": packed(colour.convert("RGBA"), "PNG"),
        "I;16": packed(Picture.fromarray(deep), "PNG"),
        "I;16B": packed(Picture.fromarray(deep), "TIFF"),
        "I": packed(Picture.fromarray(deep.astype(np.int32) - 9), "TIFF"),
        "F": packed(Picture.fromarray(deep.astype(np.float32) / 7), "TIFF"),
        "LAB": packed(Picture.merge("LAB", [grey, grey, grey]), "TIFF"),
        "PA": packed(colour.convert("P").convert("PA"), "TIFF"),
        "CMYK": packed(colour.convert("CMYK"), "JPEG", quality=95),
        "CMYK TIFF": packed(colour.convert("CMYK"), "TIFF"),
        "YCbCr": packed(colour.convert("YCbCr"), "JPEG", quality=95),
        "YCbCr TIFF": packed(colour.convert("YCbCr"), "TIFF"),
        "WebP": packed(colour, "WEBP", lossless=True),
        "BMP": packed(colour, "BMP"),
    }


def test_every_mode_of_a_picture_is_accepted(client: MedImageInsightsClient) -> None:
    made = modes()
    found = dict(zip(made, vectors(client, *made.values()), strict=True))
    for name in ("RGBA", "WebP", "BMP", "CMYK TIFF"):  # the same picture
        assert found[name] @ found["RGB"] > 0.999, name
    for name in ("I;16", "I;16B", "I", "F"):
        assert found[name] @ found["I;16"] > 0.999, name
    assert found["LA"] @ found["L"] > 0.999


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", "data:application/octet-stream;base64,", ""])
@pytest.mark.parametrize("spell", ["plain", "lines", "unpadded", "url-safe"])
def test_base64_may_come_in_any_dress(client: MedImageInsightsClient, prefix: str, spell: str) -> None:
    text = base64.b64encode(png(6)).decode()
    text = {
        "plain": text,
        "lines": "\r\n".join(text[n : n + 76] for n in range(0, len(text), 76)),
        "unpadded": text.rstrip("="),
        "url-safe": text.replace("+", "-").replace("/", "_"),
    }[spell]
    reply = client.post("/encode", {"images": [prefix + text]})
    assert reply.status == 200 and reply.body == client.encode([png(6)]).body


def test_empty_lists_and_nulls_are_answered_in_kind(client: MedImageInsightsClient) -> None:
    for asked, answer in (
        ({}, {"image_embeddings": None, "text_embeddings": None}),
        ({"images": None, "texts": None}, {"image_embeddings": None, "text_embeddings": None}),
        ({"images": [], "texts": None}, {"image_embeddings": [], "text_embeddings": None}),
        ({"images": None, "texts": []}, {"image_embeddings": None, "text_embeddings": []}),
    ):
        reply = client.post("/encode", asked)
        assert (reply.status, reply.json()) == (200, answer)
    for multilabel in (False, True):
        assert client.predict([], LABELS, multilabel).json() == {"predictions": []}
        assert client.predict([png(0)], [], multilabel).json() == {"predictions": [{}]}
    twice = client.predict([png(0)], [*LABELS, *LABELS])
    assert twice.body == client.predict([png(0)], LABELS).body
    assert client.post("/encode", {"texts": [""], "model": "ignored"}).status == 200


def test_eight_at_once_get_what_each_would_get_alone(client: MedImageInsightsClient) -> None:
    asked = [([png(10 + n)], [f"sentence {n}."]) for n in range(8)]
    alone = [client.encode(*one).json() for one in asked]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            together = threads.map(lambda one: client.encode(*one), asked)
            for reply, want in zip(together, alone, strict=True):
                assert reply.status == 200
                got = reply.json()
                for name, rows in want.items():
                    assert np.abs(np.array(got[name]) - np.array(rows)).max() < 1e-6


def test_an_encoder_without_text_encodes_images_and_names_those_with_it(tmp_path: Path) -> None:
    with running(Settings(home=tmp_path / "home", workers=1, encoder="classical")) as server:
        client = MedImageInsightsClient(server.url)
        reply = client.encode([png(0)])
        assert reply.status == 200 and reply.headers["x-encoder"].startswith("classical-")
        for refused in (client.encode([png(0)], ["text"]), client.predict([png(0)], LABELS)):
            assert refused.status == 422
            assert "no text tower" in refused.json()["detail"] and "BiomedCLIP" in refused.json()["detail"]


def test_the_script_in_the_documentation_runs(
    client: MedImageInsightsClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "text.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "chest.png").write_bytes(png(0))
    monkeypatch.chdir(tmp_path)
    exec(compile(script.replace("http://127.0.0.1:8000", client.base), "docs/text.md", "exec"), {})
    told, sizes = capsys.readouterr().out.splitlines()
    assert "pneumonia" in told and sizes == "32 32"


def test_the_reference_checkpoint_answers_as_the_reference_does(shared: Path, tmp_path: Path) -> None:
    """The small MedImageInsight checkpoint, and what the reference computed from raw images and texts."""
    fixture = shared / "fixtures" / "medimageinsight-tiny"
    told = np.load(fixture / "expected.npz")
    texts = json.loads((fixture / "expected.json").read_text(encoding="utf-8"))["texts"]
    images = [packed(Picture.fromarray(told[f"image{n}"]), "PNG") for n in range(3)]
    with running(Settings(home=tmp_path / "home", workers=1, encoder=f"medimageinsight:{fixture}")) as server:
        client = MedImageInsightsClient(server.url)
        answer = client.encode(images, texts).json()
        assert np.abs(np.array(answer["image_embeddings"]) - told["image_embeddings"]).max() < 1e-3
        assert np.abs(np.array(answer["text_embeddings"]) - told["text_embeddings"]).max() < 1e-5
        named = [text.removesuffix(".") for text in texts[:1]]  # the one that is a prompt of the contract as it stands
        (one,) = client.predict(images[:1], named).json()["predictions"]
        assert one == {named[0]: 1.0}
        bodies = {client.predict(images, ["Atelectasis", "Ultrasound"], True).body for _ in range(3)}
        assert len(bodies) == 1
