"""A gallery of MedImageInsight vectors as its users have it: the commands, the service, sentences, moved weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from retrieval.encoders import TextEncoder, open_encoder
from retrieval.errors import FingerprintMismatch, NotFoundError
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import Image
from tests.medimageinsight_files import make_folder, small_config
from tests.processes import answer, run, serving
from tests.studies import write_pictures

SENTENCE = "x-ray chest anteroposterior Atelectasis."


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, six pictures, a gallery of them made with a relative path, and a picture that is almost the fourth."""
    root = tmp_path_factory.mktemp("commands")
    make_folder(root / "model")
    pictures = write_pictures(root / "in", 6)
    near = np.array(Picture.open(pictures[3]))
    near[0, 0] ^= 1  # the very picture would be known by its content, and left out of its own answer
    Picture.fromarray(near).save(root / "near.png")
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.chdir(root)
        report = answer("index", root / "in", "--encoder", "medimageinsight:model", home=root / "home")
    assert report["cases"]["added"] == 6
    return root


def test_the_commands_find_by_picture_and_by_sentence(place: Path) -> None:
    found = answer("search", place / "near.png", "-k", 6, home=place / "home")
    assert found["encoder"]["name"] == "medimageinsight"
    assert found["hits"][0]["similarity"] > 0.9999 > found["hits"][1]["similarity"]
    by_text = answer("search", "--text", SENTENCE, "-k", 6, home=place / "home")
    encoder = open_encoder(f"medimageinsight:{place / 'model'}")
    assert isinstance(encoder, TextEncoder)
    pictures = [Image(np.array(Picture.open(path))) for path in sorted((place / "in").iterdir())]
    expected = encoder.encode(pictures) @ encoder.encode_text([SENTENCE])[0]
    assert [hit["similarity"] for hit in by_text["hits"]] == pytest.approx(sorted(expected, reverse=True), abs=1e-5)


def test_the_service_finds_by_picture_and_by_sentence(place: Path, tmp_path: Path) -> None:
    with serving(place / "home", tmp_path / "log") as served:
        with (place / "near.png").open("rb") as picture:
            by_image = served.client.post("/v1/search", files={"files": picture})
        by_text = served.client.post("/v1/search", data={"text": SENTENCE})
    assert by_image.status_code == by_text.status_code == 200, by_image.text + by_text.text
    assert by_image.json()["hits"][0]["similarity"] > 0.9999
    assert len(by_text.json()["hits"]) == 6


def test_the_list_of_encoders_names_it(tmp_path: Path) -> None:
    listed = run("encoders", home=tmp_path).stdout
    assert "medimageinsight:FOLDER" in listed and "1024 numbers" in listed and "MIT" in listed


def test_a_gallery_made_with_a_relative_path_opens_anywhere(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Gallery.open(place / "home") as gallery:
        assert gallery.encoder.card.spec == f"medimageinsight:{place / 'model'}"


def test_weights_that_moved_are_named_anew_and_others_are_refused(tmp_path: Path) -> None:
    first, moved = make_folder(tmp_path / "first"), tmp_path / "moved"
    _make_gallery(tmp_path / "home", f"medimageinsight:{first}")
    first.rename(moved)
    with pytest.raises(NotFoundError, match=r"config\.yaml .*PRECEDENT_ENCODER"):
        Gallery.open(tmp_path / "home")
    with Gallery.open(Settings(home=tmp_path / "home", encoder=f"medimageinsight:{moved}")) as gallery:
        assert gallery.encoder.card.spec == f"medimageinsight:{moved}"
    other = make_folder(tmp_path / "other", seed=1)
    with pytest.raises(FingerprintMismatch):
        Gallery.open(Settings(home=tmp_path / "home", encoder=f"medimageinsight:{other}"))


def test_another_preparation_or_an_edited_configuration_is_refused(tmp_path: Path) -> None:
    model = make_folder(tmp_path / "model")
    spec = f"medimageinsight:{model}"
    _make_gallery(tmp_path / "home", spec)
    with pytest.raises(FingerprintMismatch):
        Gallery.open(Settings(home=tmp_path / "home", encoder=f"{spec}?recipe=jpeg-512-q75-v1"))
    config = small_config()
    config["IMAGE_ENCODER"]["IMAGE_SIZE"] = [64, 64]
    shutil.rmtree(model)
    make_folder(model, config)
    with pytest.raises(FingerprintMismatch):
        Gallery.open(tmp_path / "home")


def _make_gallery(home: Path, spec: str) -> None:
    Gallery.open(Settings(home=home, encoder=spec), create=True).close()
