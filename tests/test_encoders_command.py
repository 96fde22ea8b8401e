"""``precedent encoders``: the list, the check and the card, as people call them."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from indexer.encoder_check import check_encoder
from retrieval.encoders import open_encoder
from retrieval.encoders.base import EncoderCard, unit_rows
from retrieval.encoders.files.template import write_template
from retrieval.types import Image, UnitRows
from tests.model_files import make_exported, make_onnx, sha256, write_card
from tests.processes import run

needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxruntime")), reason="the extra 'onnx' is not installed"
)


def encoders(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run("encoders", *arguments, code=code, seconds=250)


def test_the_list_tells_what_each_needs() -> None:
    entries = json.loads(encoders("--json").stdout)
    assert {"spec", "dim", "size", "recipe_name", "licence", "text", "kind", "missing", "usable"} <= entries[0].keys()
    assert {"2D", "3D"} == {entry["kind"] for entry in entries}
    assert any(entry["text"] for entry in entries)
    named = [entry for entry in entries if entry["dim"]]
    assert all(entry["size"] and entry["recipe_name"] and entry["licence"] for entry in named)
    assert all(entry["usable"] == (not entry["missing"]) for entry in entries)
    told = encoders().stdout
    assert all(entry["spec"] in told for entry in entries)
    assert "1152 numbers; 2D; 448 x 448; recipe transformers; images and text" in told


def test_checking_the_default() -> None:
    told = encoders("check", "classical").stdout
    card = open_encoder("classical").card
    for words in (card.fingerprint, "recipe.percentiles", "(0.5, 99.5)", "ms a frame", "Apache-2.0"):
        assert words in told
    assert told.count("kept ") == 4 and "BROKEN" not in told


@needs_onnx
def test_a_card_is_written_completed_and_checked(tmp_path: Path) -> None:
    model = make_onnx(tmp_path / "my net.onnx", batch=1)
    card = Path(encoders("card", model).stdout.strip())
    stated = json.loads(card.read_text())
    assert card == model.with_name("my net.onnx.card.json")
    assert (stated["name"], stated["dim"], stated["layout"]) == ("my-net", 12, "NCHW")
    assert (stated["recipe"]["size"], stated["sha256"]) == ([32, 32], sha256(model))
    report = json.loads(encoders("check", f"onnx:{model}", "--json").stdout)
    assert report["ok"] and report["fingerprint"].startswith("my-net-") and report["milliseconds"] > 0
    assert report["card"]["recipe"]["mean"] == [0.485, 0.456, 0.406]
    assert len(report["findings"]) == 4 and all(finding["kept"] for finding in report["findings"])
    assert "There is a card already" in encoders("card", model, code=2).stderr
    card.write_text("{}")
    assert "lacks 'name'" in encoders("check", f"onnx:{model}", code=2).stderr
    encoders("card", model, "--replace")
    assert json.loads(card.read_text()) == stated


@needs_onnx
@pytest.mark.parametrize(
    ("ends", "layout", "dim", "pool"),
    [
        ("rows", "NHWC", 12, None),
        ("maps", "NCHW", 8, "mean"),
        ("tokens", "NHWC", 128, "mean"),
        ("all", "NCHW", 12, None),
    ],
)
def test_a_card_written_for_any_output_opens(
    ends: str, layout: str, dim: int, pool: str | None, tmp_path: Path
) -> None:
    model = make_onnx(tmp_path / "net.onnx", ends=ends, layout=layout)
    stated = json.loads(write_template(model).read_text())
    assert (stated["dim"], stated.get("pool"), stated["layout"]) == (dim, pool, layout)
    assert open_encoder(f"onnx:{model}").card.dim == dim


def test_a_program_of_torch_gets_its_hash_on_the_card(tmp_path: Path) -> None:
    model = make_exported(tmp_path / "net.pt2")
    stated = json.loads(Path(encoders("card", model).stdout.strip()).read_text())
    assert stated["sha256"] == sha256(model)
    assert "dim must be at least 1" in encoders("check", f"torch:{model}", code=2).stderr  # only its author knows
    write_card(model, sha256=sha256(model))
    assert check_encoder(open_encoder(f"torch:{model}", device="cpu"), tmp_path).ok


def test_wrong_names_are_told_what_there_is(tmp_path: Path) -> None:
    for name, words in (
        ("nothing", "the families are"),
        ("transformers:./none", "no folder"),
        (f"onnx:{tmp_path / 'none.onnx'}", "no model file"),
        ("timm:no_such_model", "timm has no model"),
    ):
        done = encoders("check", name, code=2)
        assert words in done.stderr and not done.stdout
    assert "no model file" in encoders("card", tmp_path / "none.onnx", code=2).stderr


class Drifting:
    """An encoder that gives other vectors every time."""

    def __init__(self) -> None:
        self._calls = itertools.count()

    @property
    def card(self) -> EncoderCard:
        return replace(open_encoder("classical").card, name="drifting", dim=4)

    def encode(self, images: Sequence[Image]) -> UnitRows:
        return unit_rows(np.random.default_rng(next(self._calls)).normal(size=(len(images), 4)))


class Deaf(Drifting):
    """One that gives the same vector whatever it sees."""

    def encode(self, images: Sequence[Image]) -> UnitRows:
        return unit_rows(np.ones((len(images), 4)))


def test_an_encoder_that_does_not_keep_its_word_fails(tmp_path: Path) -> None:
    drifting = check_encoder(Drifting(), tmp_path)
    assert not drifting.ok
    assert [finding.kept for finding in drifting.findings] == [True, False, False, True]
    deaf = check_encoder(Deaf(), tmp_path)
    assert [finding.kept for finding in deaf.findings] == [True, True, True, False]
