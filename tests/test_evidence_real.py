"""Real teaching cases, embedded with the default encoder, asked with real pictures of patients who are not on file.

What a bundle says is checked against the labels file itself, and every citation and image against the service.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from starlette.testclient import TestClient

from indexer.labels import LabelTable
from indexer.limits import Limits
from indexer.pipeline import Options, index
from indexer.sandbox import Sandbox
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from tests import dicom_files
from tests.api_client import parts, served
from tests.processes import run
from tests.shared_data import labels

pytestmark = pytest.mark.slow
PATIENTS, EACH, HELD_OUT, TOKENS, IMAGES = 40, 2, 5, 2500, 5

Row = dict[str, str]


@dataclass(frozen=True)
class Real:
    """``on_file``: the rows of the labels file by case id. ``absent``: a row of each patient who is not on file.
    ``kept_back``: a row, whose picture is not on file, of each of some patients who are, by other pictures."""

    home: Path
    folder: Path
    on_file: dict[str, Row]
    absent: list[Row]
    kept_back: list[Row]


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Real:
    folder = shared / "data" / "medpix2"
    if not (folder / "labels.csv").is_file():
        pytest.skip("the shared reports are not here")
    of_patient: dict[str, list[Row]] = defaultdict(list)
    for row in labels(shared / "data", "medpix2"):
        of_patient[row["patient_id"]].append(row)
    patients = sorted(of_patient)[: PATIENTS + HELD_OUT]
    absent = [of_patient[patient][0] for patient in patients[:HELD_OUT]]
    several = [patient for patient in patients[HELD_OUT:] if len(of_patient[patient]) > EACH]
    rows = [row for patient in patients[HELD_OUT:] for row in of_patient[patient][:EACH]]
    settings = Settings(home=tmp_path_factory.mktemp("real") / "home")
    with Gallery.open(settings, create=True) as gallery, Sandbox(2, Limits.of(settings)) as sandbox:
        table = LabelTable.read(folder / "labels.csv")
        report = index(gallery, sandbox, [folder / row["path"] for row in rows], Options(labels=table))
        assert report.ok
        hashes = {hashlib.sha256((folder / row["path"]).read_bytes()).hexdigest(): row for row in rows}
        known = gallery.catalog.known_files(list(hashes))
        on_file = {case_id: row for sha256, row in hashes.items() for case_id in known[sha256]}
    return Real(settings.home, folder, on_file, absent, [of_patient[patient][EACH] for patient in several[:HELD_OUT]])


@pytest.fixture(scope="module")
def client(real: Real) -> Iterator[TestClient]:
    with served(real.home) as opened:
        yield opened


def ask(client: TestClient, path: Path, form: str = "json") -> Any:
    asked = {"format": form, "max_tokens": str(TOKENS), "max_images": str(IMAGES)}
    reply = client.post("/v1/evidence", files=parts([path]), data=asked)
    assert reply.status_code == 200, reply.text
    return reply.text if form == "markdown" else reply.json()


def counted(text: str) -> int:
    """Tokens by the rule of the documentation, in another way than the product's."""
    words = re.findall("[A-Za-z]+", text)
    spaces = sum(len(run) - 1 for run in re.findall(r"[^\S\n]+", text))
    signs = re.sub(r"[A-Za-z]|[^\S\n]", "", text)
    return sum(-(-len(word) // 3) for word in words) + spaces + len(signs.encode())


def flat(text: str) -> str:
    """With single spaces for white space, and without what is not seen."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def check_cases(client: TestClient, real: Real, bundle: dict[str, Any], patient: str) -> int:
    """Every citation opens, is of another patient, and quotes its own report; how many paragraphs were quoted."""
    quotes = 0
    assert bundle["cases"] and [case["number"] for case in bundle["cases"]] == list(range(1, len(bundle["cases"]) + 1))
    for case in bundle["cases"]:
        assert client.get(f"/v1/cases/{case['case_id']}").json()["case_id"] == case["case_id"]
        row = real.on_file[case["case_id"]]
        assert row["patient_id"] != patient
        for paragraph in f"{case['report']['impression']}\n\n{case['report']['findings']}".split("\n\n"):
            assert flat(paragraph) in flat(row["report"])
            quotes += bool(paragraph.strip())
    patients = [real.on_file[case["case_id"]]["patient_id"] for case in bundle["cases"]]
    assert len(set(patients)) == len(patients)
    return quotes


def check_images(client: TestClient, real: Real, bundle: dict[str, Any]) -> None:
    shown = [image for case in bundle["cases"] for image in case["images"]]
    assert len(shown) + 1 == bundle["budget"]["images"] <= IMAGES
    for image in shown:
        reply = client.get(image["url"])
        assert reply.status_code == 200 and reply.headers["content-type"] == "image/png"
        with (
            Picture.open(io.BytesIO(reply.content)) as got,
            Picture.open(real.folder / real.on_file[image["case_id"]]["path"]) as original,
        ):
            assert got.format == "PNG" and got.size == original.size
            difference = np.asarray(got.convert("L"), dtype=float) - np.asarray(original.convert("L"), dtype=float)
            assert np.abs(difference).mean() < 2


def test_a_patient_who_is_not_on_file(client: TestClient, real: Real) -> None:
    quotes = 0
    for row in real.absent:
        bundle = ask(client, real.folder / row["path"])
        quotes += check_cases(client, real, bundle, row["patient_id"])
        check_images(client, real, bundle)
        told = ask(client, real.folder / row["path"], "markdown")
        assert abs(counted(told) - bundle["budget"]["tokens"]) <= 8  # "created" differs by a second at most
        assert counted(told) <= TOKENS
        assert re.findall(r"^## \[(\d+)\] case (\S+)$", told, re.MULTILINE) == [
            (str(case["number"]), case["case_id"]) for case in bundle["cases"]
        ]
    assert quotes >= 2 * HELD_OUT


def test_another_picture_of_a_patient_on_file(client: TestClient, real: Real, tmp_path: Path) -> None:
    """It comes as DICOM, whose header tells the patient; the nearest cases would often be their own."""
    assert len(real.kept_back) >= 3
    own = 0
    for n, row in enumerate(real.kept_back):
        with Picture.open(real.folder / row["path"]) as picture:
            pixels = np.asarray(picture.convert("L"))
        about = {"modality": row["modality"], "sop_class": dicom_files.SC, "PatientID": row["patient_id"]}
        path = dicom_files.save(dicom_files.dataset(pixels, **about), tmp_path / f"{n}.dcm")
        check_cases(client, real, ask(client, path), row["patient_id"])
        told = client.post("/v1/search", files=parts([path]), data={"same_patient": "include"}).json()
        own += any(real.on_file[hit["case_id"]]["patient_id"] == row["patient_id"] for hit in told["hits"])
    assert own  # or there would have been nothing to keep out


def test_messages_hold_the_pictures_themselves(client: TestClient, real: Real) -> None:
    system, user = ask(client, real.folder / real.absent[0]["path"], "messages")["messages"]
    texts = [part["text"] for part in user["content"] if part["type"] == "text"]
    images = [part["image_url"]["url"] for part in user["content"] if part["type"] == "image_url"]
    assert counted("\n".join([system["content"], *texts])) <= TOKENS
    captions = re.findall(r"^Image of \[(\d+)\], slice 0:$", "\n".join(texts), re.MULTILINE)
    assert captions == [str(n) for n in range(1, len(captions) + 1)] and 2 <= len(images) == len(captions) + 1 <= IMAGES
    assert texts[-1] == "The query's image:"
    for url in images:
        with Picture.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))) as picture:
            picture.load()
            assert picture.format == "PNG" and max(picture.size) <= 512


def test_radfm_holds_the_pictures_as_blocks(real: Real, tmp_path: Path) -> None:
    query = real.folder / real.absent[0]["path"]
    sizes = ("--max-tokens", TOKENS, "--max-images", IMAGES)
    run("evidence", query, "--format", "radfm", *sizes, "--out", tmp_path / "bundle", home=real.home)
    told = json.loads((tmp_path / "bundle.json").read_text(encoding="utf-8"))
    shown = {f"[{case['number']}]": case["case_id"] for case in told["evidence"]["cases"] if case["images"]}
    assert [place["of"] for place in told["images"]] == [*shown, "query"] and counted(told["text"]) <= TOKENS
    with np.load(tmp_path / "bundle.npz") as arrays:
        for place in told["images"]:
            block = arrays[place["array"]][place["index"]]
            path = query if place["of"] == "query" else real.folder / real.on_file[shown[place["of"]]]["path"]
            with Picture.open(path) as picture:
                expected = picture.convert("RGB").resize((512, 512), Picture.Resampling.BILINEAR)
            expected = np.asarray(expected, dtype=float).transpose(2, 0, 1) / 255
            assert block.shape == (3, 512, 512, 4) and block.min() >= 0 and block.max() <= 1
            assert np.abs(block - expected[..., None]).mean() < 0.02
