"""The training of the compact encoder in small: it learns, it is reproducible, it keeps patients apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image as PillowImage

from retrieval.encoders.compact import SHA256, WEIGHTS, read_network
from retrieval.encoders.compact_network import CompactNetwork
from retrieval.encoders.recipe import Bytes, Recipe
from training.augment import view
from training.axes import principal
from training.compact import precision, save, sha256
from training.data import Frame, Frames, gather, held_out, read_sets
from training.experts import fit_expert
from training.fit import Plan, fit, pool

SIDE = 96
CPU = torch.device("cpu")
SMALL = Plan(seed=3, views=1, expert_sets=("stripes",))


def drawn(kind: str, label: int, patient: int) -> Bytes:
    """Stripes whose width is the label, or blobs; direction, noise and light are the patient's own."""
    random = np.random.default_rng((label, patient, len(kind)))
    down, across = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    if kind == "stripes":
        angle, count = random.uniform(0, np.pi), (4, 6.5, 10)[label] * random.uniform(0.95, 1.05)
        wave = np.sin(2 * np.pi * count * (np.cos(angle) * down + np.sin(angle) * across))
    else:
        wave = np.sin(9 * down + label) * np.cos(7 * across + patient)
    grey = random.uniform(90, 150) + 50 * wave + random.normal(0, 35, (SIDE, SIDE))
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def frames_of(patients: range) -> Frames:
    return gather(
        [
            Frame(drawn(kind, label, patient), kind, f"label {label}", f"{kind}/{patient}")
            for kind in ("stripes", "blobs")
            for label in range(3)
            for patient in patients
        ]
    )


def learnt(frames: Frames, plan: Plan = SMALL) -> CompactNetwork:
    """All that is learnt, learnt anew on top of the convolutions in the package."""
    network = CompactNetwork((3,)).eval().requires_grad_(False)
    network.backbone.load_state_dict(read_network(WEIGHTS, SHA256).backbone.state_dict())
    fit(network, frames, plan, CPU, lambda _: None)
    return network


@pytest.fixture(scope="module")
def network() -> CompactNetwork:
    return learnt(frames_of(range(12)))


def test_it_learns_what_holds_for_other_patients(network: CompactNetwork) -> None:
    told = precision(network, frames_of(range(100, 110)), CPU)
    stripes = next(line for line in told if line.startswith("stripes")).replace(",", "").split()
    whole, general = float(stripes[2]), float(stripes[5])
    assert whole > 0.8
    assert whole > general


def test_experts_hear_their_own_kind_alone(network: CompactNetwork) -> None:
    frames = frames_of(range(100, 106))
    pooled = pool(network, frames.pixels, CPU)
    texture = torch.nn.functional.normalize(pooled.orders[0] - network.texture.centre, dim=1)
    loud = network.experts(pooled.heard, texture).norm(dim=1).numpy()
    own = frames.of_set == frames.sets.index("stripes")
    assert loud[own].mean() > 0.3
    assert loud[~own].mean() < 0.03


def test_the_same_seed_gives_the_same_file(network: CompactNetwork, tmp_path: Path) -> None:
    again, other = (
        learnt(frames_of(range(12))),
        learnt(frames_of(range(12)), Plan(seed=4, views=2, expert_sets=("stripes",))),
    )
    for name, each in (("one", network), ("two", again), ("three", other)):
        save(each, tmp_path / name)
    assert sha256(tmp_path / "one") == sha256(tmp_path / "two") != sha256(tmp_path / "three")


def test_views_show_the_same_and_are_seeded() -> None:
    pixels = drawn("stripes", 1, 0)
    first, again, other = (view(pixels, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == pixels.shape


def test_a_patient_is_in_one_fold_alone() -> None:
    frames = frames_of(range(40))
    folds = np.stack([held_out(frames, fold, 4) for fold in range(4)])
    assert (folds.sum(axis=0) == 1).all()
    assert folds.any(axis=1).all()
    for patient in set(frames.patients):
        places = np.array([each == patient for each in frames.patients])
        assert (folds[:, places].any(axis=1).sum()) == 1


def test_principal_axes_whiten() -> None:
    rows: npt.NDArray[np.float64] = np.random.default_rng(0).normal(size=(400, 6)) * [9, 5, 3, 2, 1, 0.5] + 4
    centre, matrix = principal(rows, np.full(400, 1 / 400), 4, 0.0)
    white = (rows - centre) @ matrix
    assert np.allclose(white.T @ white / 400, np.eye(4), atol=1e-8)


def test_an_expert_weighs_its_groups_alike() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(2), 30)
    signal = (labels * 2.0 - 1)[:, None] + random.normal(0, 0.1, (60, 1))
    rows = np.concatenate([signal * 1e-3, random.normal(0, 50, (60, 40))], axis=1)
    expert = fit_expert(rows, np.ones((60, 2)), labels, [1, 40], 0.3)
    scores = (rows - expert.centre) @ expert.matrix
    assert (scores.argmax(axis=1) == labels).mean() > 0.95
    assert np.isclose(np.linalg.norm(expert.kind), 1)


def test_only_the_split_asked_for_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "stripes"
    (folder / "images").mkdir(parents=True)
    lines = ["path,label,patient_id,split"]
    for number in range(6):
        PillowImage.fromarray(drawn("stripes", number % 2, number)).save(folder / "images" / f"{number}.png")
        lines.append(f"images/{number}.png,label {number % 2},{number},{'train' if number < 4 else 'test'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    read = read_sets(tmp_path, Recipe(name="small", size=(32, 32)), sets=("stripes",))
    assert read.pixels.shape == (4, 32, 32, 3)
    assert read.patients == tuple(f"stripes/{number}" for number in range(4))
    with pytest.raises(SystemExit, match="Expected the labelled set"):
        read_sets(tmp_path, Recipe(name="small", size=(32, 32)), sets=("nothing",))
