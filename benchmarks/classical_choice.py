"""Why the classical encoder is as it is: variants side by side on labelled sets.

    python -m benchmarks.classical_choice [--split train|test] [--only TEXT] [--sets FOLDER]

Leave-one-patient-out P@5 per set and its mean, chance beside it. Choices were made on the train split alone; the test
split is for the record. FOLDER holds one folder per set with ``labels.csv`` (path, label, patient_id, split); it
defaults to ``data`` under PRECEDENT_SHARED, or under ``shared`` beside the repository. When ``weights`` beside it
holds the ImageNet MobileNetV2, that is measured too, as a reference.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage

from benchmarks.classical_variants import VARIANTS
from retrieval.encoders import classical
from retrieval.encoders.base import unit_rows
from retrieval.encoders.classical import ClassicalEncoder, describe
from retrieval.encoders.classical_blocks import Block, colour, spectrum, structure
from retrieval.encoders.recipe import Bytes, fit, luminance, stretch, window
from retrieval.evaluation import evaluate
from retrieval.types import Image, UnitRows

RECIPE = ClassicalEncoder().card.recipe
MOBILENET = "mobilenet_v2_1.0_imagenet.onnx"
ADDED_WEIGHT = 0.25  # of a variant next to the whole classical row, in the similarity
PAIRS = 20_000


@dataclass(frozen=True, slots=True)
class LabelledSet:
    name: str
    images: tuple[Image, ...]
    labels: tuple[tuple[str, ...], ...]
    patients: tuple[str, ...]


def main() -> None:
    options = _options()
    sets = list(read_sets(options.sets, options.split))
    print(f"{options.split} split, P@5, leave-one-patient-out; ms per image on one thread, decoding not counted\n")
    print(f"{'':46}" + " ".join(f"{one.name[:9]:>9}" for one in sets) + "      mean   ms  cosine of random pairs")
    print_chance(sets)
    rows = describers()
    weights = options.sets.parent / "weights" / MOBILENET
    if weights.is_file():
        rows["REFERENCE: MobileNetV2, ImageNet"] = mobilenet(weights)
    for name, describer in rows.items():
        if options.only in name:
            print_row(name, describer, sets)


def read_sets(folder: Path, split: str) -> Iterator[LabelledSet]:
    csv.field_size_limit(1 << 24)
    for table in sorted(folder.glob("*/labels.csv")):
        with table.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == split]
        yield LabelledSet(
            table.parent.name,
            tuple(Image(_pixels(table.parent / row["path"])) for row in rows),
            tuple((row["label"],) for row in rows),
            tuple(row["patient_id"] for row in rows),  # without one, an image is a patient of its own
        )


def describers() -> dict[str, Callable[[Image], Block]]:
    """Name -> image to row. Alone, every block is centred on noise as the encoder's own blocks are."""
    found: dict[str, Callable[[Image], Block]] = {name: _alone(block) for name, block in VARIANTS.items()}
    found["spectrum alone"] = _alone(spectrum)
    found["structure alone"] = _alone(structure)
    found["structure alone, centred and rooted"] = lambda image: describe(image)[:390]
    found["structure, spectrum"] = lambda image: describe(image)[:462]
    found["structure, colour"] = lambda image: np.delete(describe(image), np.s_[390:462])
    found["structure, spectrum, colour; not centred"] = _not_centred
    found["CLASSICAL: structure, spectrum, colour"] = describe
    for name, block in VARIANTS.items():
        found[f"classical + {name}"] = _added(block)
    return found


def print_chance(sets: Sequence[LabelledSet]) -> None:
    chances = [_measured(np.ones((len(one.images), 1), np.float32), one)[1] for one in sets]
    print(f"{'chance':46}" + " ".join(f"{value:9.3f}" for value in chances) + f"    {np.mean(chances):.4f}", flush=True)


def print_row(name: str, describer: Callable[[Image], Block], sets: Sequence[LabelledSet]) -> None:
    describer(sets[0].images[0])  # what is computed once is not timed
    start = time.perf_counter()
    rows = [unit_rows(np.stack([describer(image) for image in one.images])) for one in sets]
    elapsed = (time.perf_counter() - start) / sum(map(len, rows)) * 1000
    scores = [_measured(of_set, one)[0] for of_set, one in zip(rows, sets, strict=True)]
    every = np.concatenate(rows)
    left, right = np.random.default_rng(0).integers(0, len(every), (2, PAIRS))
    cosines = np.einsum("nd,nd->n", every[left], every[right])
    figures = " ".join(f"{value:9.3f}" for value in scores)
    print(
        f"{name:46}{figures}    {np.mean(scores):.4f} {elapsed:4.1f}  {cosines.mean():.2f} +- {cosines.std():.2f}",
        flush=True,
    )


def mobilenet(weights: Path) -> Callable[[Image], Block]:
    network = cv2.dnn.readNetFromONNX(str(weights))

    def describer(image: Image) -> Block:
        frame = image.pixels if image.pixels.ndim == 3 else np.repeat(image.pixels[:, :, None], 3, axis=2)
        small = np.asarray(PillowImage.fromarray(frame).resize((224, 224), PillowImage.Resampling.BILINEAR))
        network.setInput((small.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None])
        return np.asarray(network.forward(), np.float64).ravel()

    return describer


def _measured(rows: UnitRows, one: LabelledSet) -> tuple[float, float]:
    """P@5 and its chance level."""
    measure = evaluate(rows, one.patients, one.labels, ks=(5,), resamples=1).measure("P@5")
    return measure.value, measure.chance


def _grey(image: Image) -> Bytes:
    return stretch(luminance(fit(RECIPE, window(RECIPE, image))), RECIPE.percentiles)


def _centred(block: Callable[[Bytes], Block], grey: Bytes) -> Block:
    row = block(grey) - classical.CENTRED * classical.noise_centre(block)
    return row / max(float(np.linalg.norm(row)), 1e-12)


def _alone(block: Callable[[Bytes], Block]) -> Callable[[Image], Block]:
    return lambda image: _centred(block, _grey(image))


def _added(block: Callable[[Bytes], Block]) -> Callable[[Image], Block]:
    return lambda image: np.concatenate([describe(image), np.sqrt(ADDED_WEIGHT) * _centred(block, _grey(image))])


def _not_centred(image: Image) -> Block:
    grey, tint = _grey(image), colour(fit(RECIPE, window(RECIPE, image)))
    blocks = [block / np.linalg.norm(block) for block in (structure(grey), spectrum(grey))]
    return np.concatenate([*blocks, tint / (np.linalg.norm(tint) + 0.5)])


def _pixels(path: Path) -> Bytes:
    with PillowImage.open(path) as opened:
        return np.asarray(opened if opened.mode in ("L", "RGB") else opened.convert("RGB"))


def _options() -> argparse.Namespace:
    shared = os.environ.get("PRECEDENT_SHARED")
    default = (Path(shared) if shared else Path(__file__).resolve().parents[2] / "shared") / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--only", default="", help="only the rows whose name contains this text")
    parser.add_argument("--sets", type=Path, default=default)
    options = parser.parse_args()
    if not options.sets.is_dir():
        parser.error(f"there is no folder {options.sets}: name one with --sets, or set PRECEDENT_SHARED")
    return options


if __name__ == "__main__":
    main()
