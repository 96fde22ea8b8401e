"""What every encoder promises, run on every family: names, rows, fingerprints."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval.encoders import Encoder, TextEncoder, known_encoders, open_encoder
from retrieval.encoders.base import EncoderCard
from retrieval.encoders.recipe import Recipe
from retrieval.errors import NotFoundError, UsageError
from retrieval.settings import Settings
from retrieval.types import Image, UnitRows
from tests.encoder_files import NAMES, make_checkpoints, scene, scenes, specs


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module", params=NAMES)
def spec(request: pytest.FixtureRequest, checkpoints: Path) -> str:
    return specs(checkpoints)[request.param]


@pytest.fixture(scope="module")
def encoder(spec: str) -> Iterator[Encoder]:
    yield open_encoder(spec, device="cpu")


def check_unit(rows: UnitRows, count: int, dim: int) -> None:
    assert rows.shape == (count, dim)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert np.isfinite(rows).all()
    assert np.abs(np.linalg.norm(rows.astype(np.float64), axis=1) - 1).max(initial=0) < 1e-3


# --- every encoder ---


def test_rows_are_unit_and_in_order(encoder: Encoder) -> None:
    images = scenes(5)
    rows = encoder.encode(images)
    check_unit(rows, 5, encoder.card.dim)
    assert np.einsum("nd,nd->n", encoder.encode(images[::-1])[::-1], rows).min() > 0.99999
    assert ((rows @ rows.T).argmax(axis=1) == np.arange(5)).all()
    assert len({row.tobytes() for row in rows}) == 5


def test_nothing_gives_no_rows(encoder: Encoder) -> None:
    check_unit(encoder.encode([]), 0, encoder.card.dim)


def test_the_batch_does_not_matter(encoder: Encoder) -> None:
    images = scenes(9) * 2
    together = encoder.encode(images)
    alone = np.concatenate([encoder.encode([image]) for image in images])
    assert np.einsum("nd,nd->n", together, alone).min() >= 0.99999
    assert np.array_equal(together, encoder.encode(images))


def test_several_threads_at_once(encoder: Encoder) -> None:
    images = scenes(3)
    expected = encoder.encode(images)
    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(lambda _: encoder.encode(images), range(8)):
            assert np.einsum("nd,nd->n", rows, expected).min() > 0.99999


def test_any_kind_of_pixels(encoder: Encoder) -> None:
    grey = scene()
    kinds = [
        grey,
        np.repeat(grey[:, :, None], 3, axis=2),
        np.stack([grey, grey[::-1], grey[:, ::-1]], axis=2),
        grey.astype(np.uint16) * 16,
        grey.astype(np.int16) * 8 - 1000,
        grey.astype(np.float32) / 255,
    ]
    for modality in ("", "CT", "MR"):
        rows = encoder.encode([Image(pixels, modality) for pixels in kinds])
        check_unit(rows, len(kinds), encoder.card.dim)
        assert np.array_equal(rows[0], rows[1]) or rows[0] @ rows[1] > 0.99999


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_empty_looking_frames_give_finite_unit_rows(encoder: Encoder, dtype: type) -> None:
    frames = [np.full((50, 40), value, dtype) for value in (0, 1, 100)]
    speck = np.zeros((50, 40), dtype)
    speck[20, 20] = 1
    check_unit(encoder.encode([Image(pixels) for pixels in (*frames, speck)]), 4, encoder.card.dim)


def test_frames_without_a_finite_value(encoder: Encoder) -> None:
    frames = [np.full((9, 9), value, np.float32) for value in (np.nan, np.inf, -np.inf)]
    check_unit(encoder.encode([Image(pixels) for pixels in frames]), 3, encoder.card.dim)


def test_tiny_huge_and_long_frames(encoder: Encoder) -> None:
    shapes = [(1, 1), (2, 3), (1, 3000), (3000, 1), (3000, 2500)]
    check_unit(encoder.encode([Image(scene(*shape)) for shape in shapes]), len(shapes), encoder.card.dim)


def test_the_card_tells_the_truth(encoder: Encoder, spec: str) -> None:
    card = encoder.card
    assert card.spec == spec
    assert card.fingerprint.startswith(f"{card.name}-")
    assert card.text == isinstance(encoder, TextEncoder)
    assert bool(card.weights_sha256) == (card.name != "classical")
    assert open_encoder(spec, device="cpu").card == card


def test_the_input_is_left_alone(encoder: Encoder) -> None:
    pixels = scene().astype(np.float32)
    pixels[0, 0] = np.nan
    before = pixels.copy()
    encoder.encode([Image(pixels)])
    assert np.array_equal(pixels, before, equal_nan=True)


PROGRAM = """
import sys, numpy as np
from retrieval.encoders import open_encoder
from retrieval.types import Image
frames = np.load(sys.argv[1])
names = [line.split("|", 1) for line in sys.stdin.read().splitlines()]
found = {}
for name, spec in names:
    encoder = open_encoder(spec, device="cpu")
    found |= {name: encoder.encode([Image(frame) for frame in frames]), name + "-is": encoder.card.fingerprint}
np.savez(sys.argv[2], **found)
"""


@pytest.mark.slow  # two processes that open every encoder
def test_another_process_and_other_threads_give_the_same_vectors(checkpoints: Path, tmp_path: Path) -> None:
    frames = np.stack([scene(seed=seed) for seed in range(4)])
    np.save(tmp_path / "frames.npy", frames)
    asked = "\n".join(f"{name}|{spec}" for name, spec in specs(checkpoints).items())
    for threads in ("1", "4"):
        subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path / "frames.npy", tmp_path / f"{threads}.npz"],
            input=asked,
            text=True,
            check=True,
            timeout=250,
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
        )
    one, four = (np.load(tmp_path / f"{threads}.npz") for threads in ("1", "4"))
    for name, spec in specs(checkpoints).items():
        encoder = open_encoder(spec, device="cpu")
        here = encoder.encode([Image(frame) for frame in frames])
        assert one[f"{name}-is"] == four[f"{name}-is"] == encoder.card.fingerprint
        for rows in (one[name], four[name]):
            assert np.einsum("nd,nd->n", rows, here).min() >= 0.99999
    assert np.array_equal(one["classical"], four["classical"])


# --- the fingerprint ---

CARD = EncoderCard(name="n", spec="n:1", dim=8, recipe=Recipe(name="r", size=(4, 4)), weights_sha256="ab")


@pytest.mark.parametrize(
    "changed",
    [
        replace(CARD, recipe=replace(CARD.recipe, resize="pad")),
        replace(CARD, recipe=replace(CARD.recipe, ct_window=(40.0, 401.0))),
        replace(CARD, recipe=replace(CARD.recipe, use_file_window=False)),
        replace(CARD, weights_sha256="cd"),
        replace(CARD, dtype="bfloat16"),
        replace(CARD, version="2"),
        replace(CARD, dim=9),
        replace(CARD, name="m"),
    ],
)
def test_the_fingerprint_follows_what_decides_a_vector(changed: EncoderCard) -> None:
    assert changed.fingerprint != CARD.fingerprint


def test_the_fingerprint_does_not_follow_what_decides_nothing() -> None:
    aside = replace(CARD, spec="n:elsewhere", licence="MIT", notes="x", text=True)
    assert aside.fingerprint == CARD.fingerprint
    # pinned: a new or renamed field of card or recipe would orphan every gallery there is
    assert CARD.fingerprint == "n-2321a1f3ed87"


# --- names ---


@pytest.mark.parametrize("spec", ["", "resnet50", "nothing:else", "timm:no_such_model", "open_clip:NoSuchModel/tag"])
def test_an_unknown_name_is_told_what_exists(spec: str) -> None:
    with pytest.raises(NotFoundError, match=r"families are|Near it|lists them"):
        open_encoder(spec)


@pytest.mark.parametrize("spec", ["classical:x", "timm:"])
def test_a_malformed_name_is_told_the_form(spec: str) -> None:
    with pytest.raises(UsageError, match="Expected"):
        open_encoder(spec)


def test_a_device_that_is_not_there_is_refused(checkpoints: Path) -> None:
    for device in ("cuda:77", "abacus"):
        with pytest.raises(UsageError, match=device):
            open_encoder(specs(checkpoints)["test_vit"], device=device)


def test_known_encoders_start_with_the_default_and_say_what_is_missing() -> None:
    entries = known_encoders()
    assert entries[0].spec == Settings.model_fields["encoder"].default == "compact"
    assert entries[0].missing == ""
    assert entries[0].dim == open_encoder("compact").card.dim
    families = {entry.spec.partition(":")[0] for entry in entries}
    assert families >= {"compact", "classical", "timm", "open_clip", "transformers"}
    assert len({(entry.spec, entry.recipe_name) for entry in entries}) == len(entries)
    assert all(entry.recipe or entry.recipe_name or entry.dim is None for entry in entries)


def test_listing_and_importing_load_no_heavy_library() -> None:
    program = (
        "import sys, retrieval, retrieval.encoders as e\n"
        "e.known_encoders(); e.open_encoder('classical')\n"
        "print([name for name in ('torch', 'timm', 'open_clip', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_weights_that_are_not_here_are_an_error_that_names_the_way_out(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from retrieval.encoders import open_encoder\n"
        "from retrieval.errors import NotFoundError\n"
        "for spec in sys.argv[1:]:\n"
        "    try:\n"
        "        open_encoder(spec)\n"
        "    except NotFoundError as error:\n"
        "        print(error)\n"
    )
    asked = ["timm:test_vit", "open_clip:ViT-B-32/laion2b_s34b_b79k", "open_clip:hf-hub:nobody/nothing"]
    done = subprocess.run(
        [sys.executable, "-c", program, *asked],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)},
    )
    told = done.stdout.strip().splitlines()
    assert len(told) == len(asked)
    assert all("run once online, or give a local copy" in sentence for sentence in told)
