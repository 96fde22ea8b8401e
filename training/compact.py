"""Trains the compact encoder and writes its weights.

    python -m training.compact --shared FOLDER --out compact.safetensors [--seed 0] [--fold N]

FOLDER holds ``data/SET/labels.csv`` and ``weights/mobilenet_v2_1.0_imagenet.onnx``. Only the train parts of the sets in
``training.data.ALLOWED`` are read. With ``--fold N`` a quarter of the patients is left out and the encoder measured on
it, for choices; without it everything allowed is learnt from. The same seed gives the same file on the same machine.
Runs on a GPU if there is one, else on the CPU: a few minutes on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import numpy as np
import torch

from retrieval.encoders.compact import CARD, LABELS
from retrieval.encoders.compact_network import CompactNetwork
from retrieval.errors import UsageError
from retrieval.evaluation import evaluate
from training.backbone import load_backbone
from training.data import Frames, held_out, read_sets
from training.fit import Plan, as_input, fit

FOLDS = 4
_LEAST_FRAMES = 20  # of a set: fewer say nothing
BACKBONE = "mobilenet_v2_1.0_imagenet.onnx"


def main() -> None:
    options, start = _options(), time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def tell(what: str) -> None:
        print(f"{time.monotonic() - start:5.0f} s  {what}", flush=True)

    frames = read_sets(options.shared / "data", CARD.recipe)
    asked = np.zeros(len(frames), bool) if options.fold is None else held_out(frames, options.fold, FOLDS)
    learnt = frames.part(~asked)
    plan = Plan(seed=options.seed, views=options.views)
    tell(f"{len(learnt)} frames of {len(set(learnt.patients))} patients, {device}, {plan}")
    network = untrained(options.shared / "weights" / BACKBONE, device)
    fit(network, learnt, plan, device, tell)
    for line in precision(network, frames.part(asked), device):
        tell(line)
    save(network, options.out)
    tell(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256(options.out)}")


def untrained(backbone: Path, device: torch.device) -> CompactNetwork:
    """The network with the convolutions of ``backbone`` and nothing learnt."""
    network = CompactNetwork(LABELS)
    load_backbone(network.backbone, backbone)
    network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    return network


def precision(network: CompactNetwork, asked: Frames, device: torch.device) -> list[str]:
    """P@5 of the network's row on patients it has not seen, leave-one-patient-out: all of it, and the general part."""
    said = []
    for position, name in enumerate(asked.sets):
        part = asked.part(asked.of_set == position)
        if len(part) < _LEAST_FRAMES:
            continue
        with torch.inference_mode():
            rows = np.concatenate(
                [network(as_input(part.pixels[n : n + 32]).to(device)).cpu().numpy() for n in range(0, len(part), 32)]
            )
        whole, general = (_measured(each, part) for each in (rows, rows[:, : -sum(network.experts.labels)]))
        said.append(f"{name}: P@5 {whole:.3f}, without experts {general:.3f}, {len(part)} frames")
    return said


def _measured(rows: np.ndarray, part: Frames) -> float:
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    labels = [(part.classes[of_set][label],) for of_set, label in zip(part.of_set, part.labels, strict=True)]
    try:
        return evaluate(unit, part.patients, labels, (5,), resamples=1).measure("P@5").value
    except UsageError:  # so few patients that no two share a label
        return float("nan")


def save(network: CompactNetwork, out: Path) -> None:
    """The weights by name, in one safetensors file."""
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().float().contiguous() for name, value in sorted(network.state_dict().items())}
    save_file(state, out)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--views", type=int, default=Plan().views, help="augmented copies of each labelled frame")
    parser.add_argument("--fold", type=int, choices=range(FOLDS), help="leave this quarter of the patients out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
