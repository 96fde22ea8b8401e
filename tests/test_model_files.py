"""ONNX, torch.export and TorchScript files with cards: the network's own vectors, and a sentence for what is wrong."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from retrieval.encoders import TextEncoder, open_encoder
from retrieval.encoders.recipe import RawRecipe, apply
from retrieval.errors import NotFoundError, PrecedentError, UsageError
from retrieval.types import Image
from tests.encoder_files import scenes
from tests.model_files import (
    CARD,
    DIM,
    SIDE,
    make_exported,
    make_onnx,
    make_script,
    make_text_onnx,
    make_tokenizer,
    sha256,
    torch_net,
    weights,
    write_card,
)

needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxruntime")), reason="the extra 'onnx' is not installed"
)


def expected(images: list[Image], spec: str, ends: str = "rows") -> npt.NDArray[np.float32]:
    """Unit rows by the network itself, on the recipe's inputs."""
    import torch

    recipe = open_encoder(spec, device="cpu").card.recipe
    batch = np.stack([apply(recipe, image) for image in images]).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        rows = torch_net(ends)(torch.from_numpy(np.ascontiguousarray(batch))).numpy()
    rows = rows.mean((2, 3)) if ends == "maps" else rows
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def close(spec: str, ends: str = "rows") -> None:
    images = scenes(5)
    rows = open_encoder(spec, device="cpu").encode(images)
    assert np.einsum("nd,nd->n", rows, expected(images, spec, ends)).min() > 0.999999


# --- ONNX ---


@needs_onnx
@pytest.mark.parametrize("batch", ["n", 1, 4])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_onnx_of_any_batch_and_layout(batch: int | str, layout: str, tmp_path: Path) -> None:
    model = write_card(make_onnx(tmp_path / "net.onnx", batch=batch, layout=layout), layout=layout)
    close(f"onnx:{model}")


@needs_onnx
def test_onnx_that_gives_maps_or_tokens_needs_to_be_told_how_to_pool(tmp_path: Path) -> None:
    maps = write_card(make_onnx(tmp_path / "maps.onnx", ends="maps"), dim=8, pool="mean")
    close(f"onnx:{maps}", "maps")
    tokens = make_onnx(tmp_path / "tokens.onnx", ends="tokens")
    rows = {}
    for pool in ("mean", "cls"):
        rows[pool] = open_encoder(f"onnx:{write_card(tokens, dim=128, pool=pool)}", device="cpu").encode(scenes(2))
    assert not np.allclose(rows["mean"], rows["cls"])
    for model, dim, shape in ((maps, 8, r"\[1, 8, 32, 32\]"), (tokens, 128, r"\[1, 64, 128\]")):
        with pytest.raises(UsageError, match=f"{shape}.*pool"):
            open_encoder(f"onnx:{write_card(model, dim=dim)}")
    with pytest.raises(UsageError, match=r"\[1, 64, 128\].*the 12 numbers"):
        open_encoder(f"onnx:{write_card(tokens, pool='cls')}")


@needs_onnx
def test_onnx_with_several_outputs_is_asked_which(tmp_path: Path) -> None:
    model = make_onnx(tmp_path / "net.onnx", ends="all")
    with pytest.raises(UsageError, match="outputs rows, maps, tokens"):
        open_encoder(f"onnx:{write_card(model)}")
    close(f"onnx:{write_card(model, input='pixels', output='rows')}")
    with pytest.raises(UsageError, match="inputs pixels"):
        open_encoder(f"onnx:{write_card(model, input='images', output='rows')}")


@needs_onnx
def test_data_beside_an_onnx_file_are_weights_as_well(tmp_path: Path) -> None:
    whole = write_card(make_onnx(tmp_path / "whole" / "net.onnx"))
    model = write_card(make_onnx(tmp_path / "split" / "net.onnx", external=True))
    first = open_encoder(f"onnx:{model}", device="cpu")
    assert np.array_equal(first.encode(scenes(2)), open_encoder(f"onnx:{whole}", device="cpu").encode(scenes(2)))
    data = model.with_suffix(".data")
    changed = bytearray(data.read_bytes())
    changed[5] ^= 1
    data.write_bytes(changed)
    assert open_encoder(f"onnx:{model}").card.fingerprint != first.card.fingerprint
    data.unlink()
    with pytest.raises(NotFoundError, match=r"net\.data"):
        open_encoder(f"onnx:{model}")


@needs_onnx
def test_data_of_a_constant_within_a_node_are_weights_as_well(tmp_path: Path) -> None:
    import onnx

    write_card(make_onnx(tmp_path / "net.onnx", external=True))
    first = open_encoder(f"onnx:{tmp_path / 'net.onnx'}", device="cpu")
    model = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    (kernel,) = (each for each in model.graph.initializer if each.name == "kernel")
    constant = onnx.helper.make_node("Constant", [], ["kernel"])
    constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(kernel)
    model.graph.node.insert(0, constant)
    model.graph.initializer.remove(kernel)
    for each in model.graph.initializer:  # from now on the kernel alone is in the file of data
        if each.name != "cut":
            each.CopyFrom(onnx.numpy_helper.from_array(weights()[each.name], each.name))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    within = open_encoder(f"onnx:{tmp_path / 'net.onnx'}", device="cpu")
    assert np.allclose(within.encode(scenes(2)), first.encode(scenes(2)), atol=1e-6)
    data = bytearray((tmp_path / "net.data").read_bytes())
    data[:] = bytes(len(data))
    (tmp_path / "net.data").write_bytes(data)
    changed = open_encoder(f"onnx:{tmp_path / 'net.onnx'}", device="cpu")
    assert changed.card.fingerprint != within.card.fingerprint


@needs_onnx
def test_a_link_to_a_model_is_opened_by_its_own_name(tmp_path: Path) -> None:
    """As in the cache of a hub, where files lie under their hashes."""
    blob = make_onnx(tmp_path / "blobs" / "0a1b2c")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "net.onnx").symlink_to(blob)
    close(f"onnx:{write_card(tmp_path / 'snapshot' / 'net.onnx')}")


@needs_onnx
def test_an_onnx_text_tower(tmp_path: Path) -> None:
    text = {"file": make_text_onnx(tmp_path / "text.onnx").name, "context": 6}
    text["tokenizer"] = make_tokenizer(tmp_path / "tokenizer.json").name
    model = write_card(make_onnx(tmp_path / "net.onnx"), text=text, logit_scale=14.3)
    encoder = open_encoder(f"onnx:{model}", device="cpu")
    assert isinstance(encoder, TextEncoder) and encoder.card.text and encoder.card.logit_scale == 14.3
    rows = encoder.encode_text(["chest x-ray", "chest x-ray normal", "heart " * 50, "chest x-ray"])
    assert rows.shape == (4, DIM) and np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert np.array_equal(rows[0], rows[3]) and rows[0] @ rows[1] < 0.999
    assert encoder.encode_text([]).shape == (0, DIM)
    assert encoder.card.fingerprint == open_encoder(f"onnx:{write_card(model, logit_scale=14.3)}").card.fingerprint
    with pytest.raises(NotFoundError, match=r"none\.onnx"):
        open_encoder(f"onnx:{write_card(model, text={**text, 'file': 'none.onnx'})}")
    with pytest.raises(UsageError, match="outside its folder"):
        open_encoder(f"onnx:{write_card(model, text={**text, 'file': '../x.onnx'})}")


@needs_onnx
def test_a_device_onnx_runtime_does_not_have_is_refused(tmp_path: Path) -> None:
    model = write_card(make_onnx(tmp_path / "net.onnx"))
    for device in ("abacus", "cuda:x"):
        with pytest.raises(UsageError, match=device):
            open_encoder(f"onnx:{model}", device=device)


# --- torch ---


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_torch_export_of_any_batch(batch: int | None, tmp_path: Path) -> None:
    model = make_exported(tmp_path / "net.pt2", batch=batch)
    close(f"torch:{write_card(model, sha256=sha256(model))}")


def test_torchscript(tmp_path: Path) -> None:
    model = make_script(tmp_path / "net.pt", ends="maps")
    close(f"torch:{write_card(model, sha256=sha256(model), dim=8, pool='mean')}", "maps")


def test_a_program_nobody_vouched_for_or_that_changed_is_not_opened(tmp_path: Path) -> None:
    model = make_script(tmp_path / "net.pt")
    with pytest.raises(UsageError, match=f'is a program.*"sha256": "{sha256(model)}"'):
        open_encoder(f"torch:{write_card(model)}")
    write_card(model, sha256=sha256(model))
    make_script(model, seed=1)
    with pytest.raises(UsageError, match="another file or was changed"):
        open_encoder(f"torch:{model}")


def test_files_that_are_no_program_are_told(tmp_path: Path) -> None:
    import torch

    model = tmp_path / "weights.pt"
    torch.save(torch_net().state_dict(), model)
    with pytest.raises(UsageError, match="not TorchScript"):
        open_encoder(f"torch:{write_card(model, sha256=sha256(model))}")
    model = tmp_path / "weights.pt2"
    model.write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"not a program of torch\.export"):
        open_encoder(f"torch:{write_card(model, sha256=sha256(model))}")
    model = make_script(tmp_path / "net.pt")
    with pytest.raises(UsageError, match="does not take an input"):
        recipe = {"size": [SIDE, SIDE], "channels": 1, "mean": [0], "std": [1]}
        open_encoder(f"torch:{write_card(model, sha256=sha256(model), recipe=recipe)}")


# --- cards ---


def refusal(model: Path, body: str | None = None, **changes: Any) -> str:
    write_card(model, **changes)
    if body is not None:
        model.with_name(model.name + ".card.json").write_text(body)
    with pytest.raises(PrecedentError) as refused:
        open_encoder(f"onnx:{model}", device="cpu")
    return str(refused.value)


@needs_onnx
def test_whatever_is_wrong_on_a_card_is_told_by_field(tmp_path: Path) -> None:
    model = make_onnx(tmp_path / "net.onnx")
    recipe = CARD["recipe"]
    assert isinstance(recipe, dict)
    for words, changes in (
        ("no field 'colour'", {"colour": 1}),
        ("lacks 'name'", {"name": None}),
        ("lacks 'recipe'", {"recipe": None}),
        ("name must be letters", {"name": "a/b"}),
        ("dim must be a whole number", {"dim": "12"}),
        ("dim must be a whole number", {"dim": True}),
        ("dim must be at least 1", {"dim": 0}),
        ("layout must be one of NCHW, NHWC", {"layout": "HWC"}),
        ("pool must be one of none, mean, cls", {"pool": "max"}),
        ("licence must be a text", {"licence": 3}),
        ("logit_scale must be over 0", {"logit_scale": -1}),
        ("sha256 must be 64", {"sha256": "abc"}),
        ("another file or was changed", {"sha256": "0" * 64}),
        ("recipe must be an object", {"recipe": 3}),
        ("recipe has no field 'width'", {"recipe": {**recipe, "width": 1}}),
        ("recipe lacks 'size'", {"recipe": {}}),
        ("recipe.size must have 2 values", {"recipe": {**recipe, "size": [32]}}),
        ("recipe.size[1] must be a whole number", {"recipe": {**recipe, "size": [32, 32.5]}}),
        ("recipe.mean must be a list", {"recipe": {**recipe, "mean": 0.5}}),
        ("std must be over 0", {"recipe": {**recipe, "std": [0]}}),
        ("recipe.ct_window", {"recipe": {**recipe, "ct_window": [0, 10**400]}}),
        ("fill must have 1 or 3 values of 0 to 255", {"recipe": {**recipe, "fill": [256]}}),
        ("resize must be one of", {"recipe": {**recipe, "resize": "stretch"}}),
        ("recipe.intensities", {"recipe": {**recipe, "intensities": "log"}}),
        ("[n, 3, 64, 64]", {"recipe": {**recipe, "size": [64, 64]}}),
        ("[n, 32, 32, 3]", {"layout": "NHWC"}),
        ("text lacks 'tokenizer'", {"text": {"file": "a"}}),
        ("text.context must be at least 1", {"text": {"file": "a", "tokenizer": "b", "context": 0}}),
    ):
        told = refusal(model, **changes)
        assert words in told and "net.onnx" in told, told
    assert "not readable JSON" in refusal(model, "{")
    assert "must be a JSON object" in refusal(model, "[]")


@needs_onnx
def test_absent_models_and_cards_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no model file"):
        open_encoder(f"onnx:{tmp_path / 'none.onnx'}")
    model = make_onnx(tmp_path / "net.onnx")
    with pytest.raises(NotFoundError, match="precedent encoders card"):
        open_encoder(f"onnx:{model}")
    write_card(model)
    model.write_bytes(b"not a model")
    with pytest.raises(UsageError, match="not an ONNX model"):
        open_encoder(f"onnx:{model}")
    for family in ("onnx", "torch"):
        with pytest.raises(UsageError, match=f"Expected {family}:PATH"):
            open_encoder(f"{family}:")


@needs_onnx
def test_what_a_card_says_is_in_the_fingerprint_or_decides_nothing(tmp_path: Path) -> None:
    model = make_onnx(tmp_path / "net.onnx", ends="all")
    recipe = CARD["recipe"]
    assert isinstance(recipe, dict)

    def fingerprint(**changes: Any) -> str:
        return open_encoder(f"onnx:{write_card(model, **{'output': 'rows', **changes})}").card.fingerprint

    first = fingerprint()
    assert fingerprint(licence="Apache-2.0", notes="x") == first
    for changes in (
        {"name": "other"},
        {"recipe": {**recipe, "mean": [0.5, 0.4, 0.31]}},
        {"recipe": {**recipe, "percentiles": [1, 99]}},
        {"output": "maps", "dim": 8, "pool": "mean"},
        {"output": "tokens", "dim": 128, "pool": "mean"},
        {"output": "tokens", "dim": 128, "pool": "cls"},
    ):
        assert fingerprint(**changes) != first
    assert fingerprint(output="tokens", dim=128, pool="cls") != fingerprint(output="tokens", dim=128, pool="mean")


@needs_onnx
def test_cards_of_raw_intensities_and_of_several_windows(tmp_path: Path) -> None:
    model = make_onnx(tmp_path / "net.onnx")
    raw = {"size": [SIDE, SIDE], "intensities": "raw", "floor": -1000}
    assert open_encoder(f"onnx:{write_card(model, recipe=raw)}").card.recipe == RawRecipe(
        name="card", size=(SIDE, SIDE), floor=-1000.0
    )
    windows = {"size": [SIDE, SIDE], "ct_windows": [[40, 400], [-600, 1500]], "ct_windows_as": "vectors"}
    encoder = open_encoder(f"onnx:{write_card(model, recipe=windows)}", device="cpu")
    slices = [Image(scenes(1)[0].pixels.astype(np.int16) * 8 - 1000, "CT"), *scenes(1)]
    assert encoder.encode(slices).shape == (2, DIM)
    none = open_encoder(f"onnx:{write_card(model, recipe={**windows, 'ct_windows': []})}", device="cpu")
    assert none.encode(slices).shape == (2, DIM)


@needs_onnx
def test_a_gallery_can_be_named_from_any_folder(tmp_path: Path) -> None:
    model = write_card(make_onnx(tmp_path / "net.onnx"))
    relative = os.path.relpath(model, Path.cwd())
    assert open_encoder(f"onnx:{relative}").card.spec == f"onnx:{model}"


@needs_onnx
def test_the_shorter_name_of_a_card_will_do(tmp_path: Path) -> None:
    model = make_onnx(tmp_path / "net.onnx")
    (tmp_path / "net.card.json").write_text(json.dumps(CARD))
    close(f"onnx:{model}")


@needs_onnx
def test_the_card_of_the_documentation_opens_a_model(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "encoders.md").read_text(encoding="utf-8")
    stated = json.loads(page.partition("```json\n")[2].partition("```")[0])
    model = make_onnx(tmp_path / "net.onnx", batch=1)
    make_text_onnx(tmp_path / "text.onnx")
    make_tokenizer(tmp_path / "tokenizer.json")
    stated |= {"dim": DIM, "text": {**stated["text"], "context": 6}}
    stated["recipe"]["size"] = [SIDE, SIDE]  # that of the small network; all else as it is shown
    encoder = open_encoder(f"onnx:{write_card(model, **stated)}", device="cpu")
    assert encoder.encode(scenes(2)).shape == (2, DIM) and encoder.card.text
