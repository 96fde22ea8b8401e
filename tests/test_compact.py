"""The compact encoder: one vector a frame, near ones for views that show the same, a spread over all else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image as PillowImage
from pydicom.data import get_testdata_file

from indexer.demo.phantoms import generate
from retrieval.encoders import open_encoder
from retrieval.encoders.compact import CARD, LABELS, SHA256, WEIGHTS, CompactEncoder, read_network
from retrieval.errors import NotFoundError, UsageError
from retrieval.types import Image, Pixels, UnitRows

REAL = (
    "CT_small.dcm",
    "MR_small.dcm",
    "693_J2KI.dcm",
    "examples_rgb_color.dcm",
    "examples_jpeg2k.dcm",
    "liver_1frame.dcm",
)


@pytest.fixture(scope="module")
def encoder() -> CompactEncoder:
    opened = open_encoder("compact", device="cpu")
    assert isinstance(opened, CompactEncoder)
    return opened


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[Image]:
    """Drawn radiographs, ultrasound, skin, CT and MR slices: modalities the weights have mostly never seen."""
    folder = generate(tmp_path_factory.mktemp("phantoms"), seed=5, size="tiny").parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".dcm", ".png"))
    series: dict[Path, list[Path]] = {}
    for path in files:
        series.setdefault(path.parent, []).append(path)
    return [read(members[len(members) // 2]) for members in series.values()]


def read(path: Path) -> Image:
    if path.suffix == ".png":
        return Image(np.asarray(PillowImage.open(path).convert("RGB")))
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array
    if dataset.Modality == "CT":
        pixels = (pixels * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)).astype(np.float32)
    return Image(pixels, modality=dataset.Modality)


def frame(image: Image) -> Pixels:
    """The frame as 8 bits, so that it can be changed as pictures are."""
    pixels = image.pixels.astype(np.float32)
    low, high = np.percentile(pixels, (1, 99))
    return np.clip((pixels - low) / max(float(high - low), 1e-6) * 255, 0, 255).astype(np.uint8)


def apart(rows: UnitRows) -> np.ndarray:
    return (rows @ rows.T)[np.triu_indices(len(rows), 1)]


def turned(pixels: Pixels, degrees: float) -> Pixels:
    rows, columns = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((columns / 2, rows / 2), degrees, 1)
    return cv2.warpAffine(pixels, matrix, (columns, rows), borderMode=cv2.BORDER_REPLICATE)


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "narrower window": lambda pixels: np.clip((pixels.astype(np.float32) - 20) * 1.2, 0, 255).astype(np.uint8),
    "darker": lambda pixels: (pixels * 0.75).astype(np.uint8),
    "gamma": lambda pixels: (255 * (pixels / 255) ** 1.25).astype(np.uint8),
    "half the size": lambda pixels: cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "larger": lambda pixels: cv2.resize(pixels, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC),
    "turned by 5 degrees": lambda pixels: turned(pixels, 5),
    "turned by -8 degrees": lambda pixels: turned(pixels, -8),
    "cropped by a twentieth": lambda pixels: pixels[pixels.shape[0] // 20 :, : -pixels.shape[1] // 20],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_view_is_nearer_to_its_frame_than_other_frames_are(
    change: str, encoder: CompactEncoder, phantoms: list[Image]
) -> None:
    frames = [frame(image) for image in phantoms]
    before = encoder.encode([Image(each) for each in frames])
    after = encoder.encode([Image(np.ascontiguousarray(CHANGES[change](each))) for each in frames])
    same = np.einsum("nd,nd->n", before, after)
    assert np.median(same) > np.quantile(apart(before), 0.95)
    assert np.mean((after @ before.T).argmax(axis=1) == np.arange(len(frames))) >= 0.9


def test_modalities_never_seen_do_not_collapse(encoder: CompactEncoder, phantoms: list[Image]) -> None:
    real = [read(Path(get_testdata_file(name))) for name in REAL]
    noise = [Image(np.random.default_rng(seed).integers(0, 256, (64, 64), np.uint8)) for seed in range(2)]
    cosines = apart(encoder.encode([*phantoms, *real, *noise]))
    assert cosines.std() > 0.1
    assert np.median(cosines) < 0.6
    assert np.mean(cosines > 0.98) < 0.01


def test_experts_are_silent_on_what_they_were_not_trained_on(encoder: CompactEncoder, phantoms: list[Image]) -> None:
    seen = [image for image in phantoms if image.modality in ("CT", "MR", "US") or image.pixels.ndim == 3]
    rows = encoder.encode(seen)
    known = rows[:, -486 - sum(LABELS) : -486]
    assert len(seen) > 10
    assert np.linalg.norm(known, axis=1).max() < 0.05


def test_a_frame_has_one_vector_whatever_the_batch(encoder: CompactEncoder, phantoms: list[Image]) -> None:
    images = phantoms[:21]
    together = encoder.encode(images)
    alone = np.concatenate([encoder.encode([image]) for image in images])
    backwards = encoder.encode(images[::-1])[::-1]
    assert np.einsum("nd,nd->n", together, alone).min() > 0.99999
    assert np.einsum("nd,nd->n", together, backwards).min() > 0.99999


def test_a_frame_has_one_vector_in_any_process(encoder: CompactEncoder) -> None:
    program = (
        "import numpy as np, sys, torch\n"
        "torch.set_num_threads(int(sys.argv[1]))\n"
        "from retrieval.encoders import open_encoder\n"
        "from retrieval.types import Image\n"
        "pixels = np.add.outer(np.arange(90), np.arange(70)).astype(np.uint8)\n"
        "row = open_encoder('compact', device='cpu').encode([Image(pixels)])[0]\n"
        "sys.stdout.write(' '.join(map(repr, row.tolist())))"
    )
    pixels = np.add.outer(np.arange(90), np.arange(70)).astype(np.uint8)
    here = encoder.encode([Image(pixels)])[0]
    for threads in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, threads], capture_output=True, text=True, check=True, timeout=120
        )
        assert here @ np.array(done.stdout.split(), np.float32) > 0.99999


def test_frames_of_any_kind_have_finite_unit_rows(encoder: CompactEncoder) -> None:
    shapes = [(1, 1), (3, 700), (512, 512), (40, 40, 3)]
    images = [Image(np.full(shape, value, np.uint8)) for shape in shapes for value in (0, 255)]
    images.append(Image(np.full((30, 30), -1000.0, np.float32), modality="CT"))
    rows = encoder.encode(images)
    assert rows.shape == (len(images), CARD.dim)
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert encoder.encode([]).shape == (0, CARD.dim)


def test_damaged_or_missing_weights_are_told(tmp_path: Path) -> None:
    packed = bytearray(WEIGHTS.read_bytes())
    packed[len(packed) // 2] ^= 1
    damaged = tmp_path / "compact.safetensors"
    damaged.write_bytes(bytes(packed))
    with pytest.raises(UsageError, match="damaged or not of this version"):
        read_network(damaged, SHA256)
    with pytest.raises(NotFoundError, match="missing from the installation"):
        read_network(tmp_path / "none.safetensors", SHA256)
    whole = shutil.copy(WEIGHTS, tmp_path / "whole.safetensors")
    assert read_network(Path(whole), SHA256).dim + 486 == CARD.dim


def test_the_weights_are_small_and_named_by_the_fingerprint() -> None:
    assert WEIGHTS.stat().st_size < 30e6
    assert CARD.weights_sha256 == SHA256
    assert CARD.fingerprint.startswith("compact-")


def test_there_is_one_compact_encoder() -> None:
    with pytest.raises(UsageError, match="alone"):
        open_encoder("compact:other")
