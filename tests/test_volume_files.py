"""3D networks from files with a card: TorchScript, torch.export and ONNX give one vector, from index to answer."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.query import read_query
from indexer.report import CaseStatus
from indexer.sandbox import Sandbox
from retrieval.encoders import known_encoders, open_encoder
from retrieval.encoders.base import VolumeEncoder
from retrieval.encoders.files.card import card_of, file_sha256
from retrieval.encoders.volumes.recipe import CT_FM, MERLIN, PUBLISHED
from retrieval.errors import UsageError
from retrieval.gallery import Gallery
from tests.api_client import parts, served
from tests.studies import index_all, open_gallery, write_pictures
from tests.volume_phantoms import AXIAL, SMALL, rounded, small_network, small_tower, write_ct, write_nii

VOLUME = {
    "name": "small-v1", "orientation": "SPL", "spacing": [4, 3, 3], "patch": [12, 24, 24], "ranges": [[-1024, 2048]]
}  # fmt: skip


def write_card(model: Path, **changes: object) -> Path:
    card = {"name": "small3d", "dim": 32, "licence": "MIT", "sha256": file_sha256(model), "volume": VOLUME, **changes}
    path = model.with_name(model.name + ".card.json")
    path.write_text(json.dumps({name: value for name, value in card.items() if value is not None}))
    return model


def write_script(network: torch.nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():  # torch urges its users on to torch.export; such files are about all the same
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.zeros(2, 1, 12, 24, 24), check_trace=False).save(path)
    return path


def write_onnx(network: torch.nn.Module, path: Path, **how: object) -> Path:
    with warnings.catch_warnings():  # as above, of its older exporter
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.zeros(2, 1, 12, 24, 24),), path, input_names=["volume"], output_names=["rows"],
            dynamo=False, **how,
        )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network as TorchScript, torch.export and ONNX, with a batch of any size and of one."""
    folder = tmp_path_factory.mktemp("models")
    network, example = small_network(), torch.zeros(2, 1, 12, 24, 24)
    write_script(network, folder / "script.pt")
    any_batch = {"input": {0: torch.export.Dim("n", min=1, max=64)}}
    torch.export.save(torch.export.export(network, (example,), dynamic_shapes=any_batch), folder / "program.pt2")
    torch.export.save(torch.export.export(network, (example[:1],)), folder / "one.pt2")
    write_onnx(network, folder / "any.onnx", dynamic_axes={"volume": {0: "n"}})
    write_onnx(network, folder / "two.onnx")
    for path in list(folder.iterdir()):
        write_card(path)
    return folder


SPECS = ["torch:{}/script.pt", "torch:{}/program.pt2", "torch:{}/one.pt2", "onnx:{}/any.onnx", "onnx:{}/two.onnx"]


@pytest.mark.parametrize("spec", SPECS)
def test_every_kind_of_file_gives_the_rows_of_the_network_in_it(models: Path, spec: str) -> None:
    encoder = open_encoder(spec.format(models), device="cpu")
    assert isinstance(encoder, VolumeEncoder)
    assert (encoder.card.kind, encoder.card.dim, encoder.card.volume) == ("3D", 32, SMALL)
    volume = AXIAL.volume(rounded(AXIAL.points()))
    expected = small_tower().encode_volume(volume)
    found = encoder.encode_volume(volume)
    assert np.allclose(found.rows, expected.rows, atol=1e-5) and found.middles == expected.middles
    assert np.array_equal(encoder.encode_volume(volume).rows, found.rows)


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[3]])
def test_a_gallery_of_volumes_opens_again_by_the_spec_it_keeps(
    models: Path, spec: str, tmp_path: Path, sandbox: Sandbox
) -> None:
    write_ct(tmp_path / "in" / "1", AXIAL, number=1)
    write_ct(tmp_path / "in" / "2", AXIAL, number=2, size=1.2)
    with open_gallery(tmp_path / "home", encoder=spec.format(models)) as gallery:
        assert index_all(gallery, sandbox, tmp_path / "in").cases == {CaseStatus.ADDED: 2}
    with Gallery.open(tmp_path / "home") as gallery:
        gallery.warm_up()
        asked = read_query(gallery, sandbox, [write_nii(tmp_path / "asked.nii", AXIAL, size=1.2)])
        hits = gallery.search(asked.query).hits
        assert hits[0].case.series_uid.endswith("2") and hits[0].similarity > 0.99999 > hits[1].similarity


def test_a_published_recipe_is_named_on_the_card(models: Path) -> None:
    model = models / "script.pt"
    for recipe in PUBLISHED.values():
        write_card(model, volume=recipe.name)
        assert card_of(model, "torch").volume == recipe
    write_card(model)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"volume": "ct-fm-v9"}, "ct-fm-v1, merlin-v1"),
        ({"volume": {**VOLUME, "orientation": "RAX"}}, "orientation"),
        ({"volume": {**VOLUME, "spacings": [1, 1, 1]}}, "no field 'spacings'"),
        ({"volume": {"orientation": "RAS"}}, "lacks 'spacing'"),
        ({"volume": 3}, "must be an object"),
        ({"recipe": {"size": [8, 8]}}, "not both"),
        ({"layout": "NHWC"}, "channels first"),
        ({"volume": {**VOLUME, "patch": [12, 24, 96]}}, "mend size"),
        ({"dim": 31}, "31 numbers"),
        ({"volume": {**VOLUME, "ranges": [[0, 1], [0, 2]]}}, "mend size"),
    ],
)
def test_a_card_that_does_not_fit_the_network_is_told(models: Path, changes: dict[str, object], sentence: str) -> None:
    model = models / "any.onnx"
    write_card(model, **changes)
    try:
        with pytest.raises(UsageError, match=sentence):
            open_encoder(f"onnx:{model}")
    finally:
        write_card(model)


def test_feature_maps_are_pooled_where_the_card_says_so(tmp_path: Path) -> None:
    maps = small_network()[:2]
    write_script(maps, tmp_path / "maps.pt")
    with pytest.raises(UsageError, match='need "pool"'):
        open_encoder(f"torch:{write_card(tmp_path / 'maps.pt', dim=8)}")
    encoder = open_encoder(f"torch:{write_card(tmp_path / 'maps.pt', dim=8, pool='mean')}")
    assert isinstance(encoder, VolumeEncoder)
    assert encoder.encode_volume(AXIAL.volume(rounded(AXIAL.points()))).rows.shape == (12, 8)


def test_ct_fm_and_merlin_are_listed_with_what_is_missing() -> None:
    listed = {entry.recipe_name: entry for entry in known_encoders() if entry.kind == "3D"}
    assert {name: (listed[name].dim, listed[name].size) for name in listed} == {
        "ct-fm-v1": (512, (24, 128, 128)),
        "merlin-v1": (2048, (224, 224, 160)),
    }
    assert all(entry.licence == "MIT" and f'"volume": "{name}"' in entry.missing for name, entry in listed.items())
    assert "SPL, 3 x 1 x 1 mm, -1024 to 2048 HU" in listed["ct-fm-v1"].notes
    assert "RAS, 1.5 x 1.5 x 3 mm, -1000 to 1000 HU to 0..1, the centre 224 x 224 x 160" in listed["merlin-v1"].notes
    assert (CT_FM.overlap, CT_FM.pooling, MERLIN.layout) == (0, "mean", "whole")


def test_volumes_are_sent_kept_and_looked_at_over_http(models: Path, tmp_path: Path, sandbox: Sandbox) -> None:
    with open_gallery(tmp_path / "home", encoder=f"onnx:{models}/any.onnx") as gallery:
        index_all(gallery, sandbox, write_nii(tmp_path / "first.nii", AXIAL))
    sent = write_ct(tmp_path / "sent", AXIAL, size=1.1)
    with served(tmp_path / "home") as client:
        (picture,) = write_pictures(tmp_path / "png", 1)
        refused = client.post("/v1/search", files=parts([picture]))
        assert refused.status_code == 422 and "takes volumes" in refused.json()["detail"]
        added = client.post("/v1/cases", files=parts(sent))
        assert added.status_code == 201, added.text
        case_id = client.get("/v1/cases").json()["cases"][-1]["case_id"]
        seen = {client.get(f"/v1/cases/{case_id}/image", params={"slice": n}).content for n in range(40)}
        assert len(seen) >= 38  # every slice is kept, not only those that patches stand for; the ends are air
        answer = client.post("/v1/search", files=parts(sent), data={"preview": "true"}).json()
        assert answer["query"]["case_id"] == case_id and len(answer["hits"]) == 1
        shown = {client.get(answer["query"]["preview"], params={"slice": n}).content for n in range(40)}
        assert len(shown) >= 38
        found = client.get(f"/v1/cases/{case_id}/similar").json()["hits"][0]
        assert found["matches"] and found["similarity"] == pytest.approx(answer["hits"][0]["similarity"], abs=1e-6)
