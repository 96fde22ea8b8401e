"""How fast networks run by each path, and which is chosen: images a second beside torch in float32, in the same run.

    python -m benchmarks.bench_encoders [--rounds 5] [--models ViT-B/16,DenseNet-121] [--thorough]

Every path is timed in turn, round after round, on the same batch of 16, and medians are compared: another program that
slows the machine slows all of them. "encode" is the whole of ``encode`` on 256 x 256 frames, preparation included, by
the chosen path. Weights are random, of a seed: speed does not depend on them; cosines do, and a trained network's
may be lower or higher, which is why calibration measures them on the user's own. ``--thorough`` also tries torch's
compiler, which takes minutes. Exits 1 when a chosen path is below what is wanted of its model; those of which a factor
is wanted "with bfloat16" are held to it only where the machine computes in that type.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from retrieval.encoders import open_encoder
from retrieval.encoders.paths.base import EAGER, FastPath, Forward
from retrieval.encoders.paths.choice import Choice
from retrieval.encoders.paths.execution import inference, to_device, to_host
from retrieval.encoders.paths.known import KNOWN_PATHS
from retrieval.encoders.paths.machine import Machine
from retrieval.encoders.paths.prepare import calibrate_now, tower_of
from retrieval.encoders.paths.samples import sample_images
from retrieval.encoders.paths.torch_paths import has_bfloat16
from retrieval.encoders.tower import BATCH, ImageTower
from retrieval.errors import NotFoundError

WANTED_OF_BARE = 0.85  # of the network's own throughput on a GPU, ``encode`` as a whole
TAKE = 32  # frames of one timed ``encode``


@dataclass(frozen=True, slots=True)
class Model:
    """``timm``: its name there, "" for an encoder of our own. ``wanted``: times eager; 0 for none."""

    name: str
    timm: str
    wanted: float
    with_bfloat16: bool = False


MODELS = (
    Model("ViT-B/16", "vit_base_patch16_224", 3.0, with_bfloat16=True),
    Model("ViT-S/16", "vit_small_patch16_224", 0.0),
    Model("DenseNet-121", "densenet121", 1.7),
    Model("MobileNetV3-small", "mobilenetv3_small_100", 1.7),
    Model("compact", "", 0.0),
)


def opened(model: Model, folder: Path) -> ImageTower | None:
    """The model as a user opens it, its weights random; None where there is no such encoder."""
    spec = model.name
    if model.timm:
        import timm
        from safetensors.torch import save_file

        torch.manual_seed(0)
        network = timm.create_model(model.timm, pretrained=False)
        weights = folder / f"{model.timm}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, weights)
        spec = f"timm:{model.timm}@{weights}"
    try:
        return tower_of(open_encoder(spec))
    except NotFoundError:
        return None


def built(tower: ImageTower, thorough: bool) -> tuple[dict[str, Forward], dict[str, float], list[str]]:
    """Every path that can be built here, the seconds each took with its first batch, and why others can't."""
    device, eager = tower.execution.device, tower.execution.eager
    inputs = to_device(tower.inputs(sample_images(BATCH)), device)
    forwards, seconds, notes = {}, {}, []
    for path in (FastPath(EAGER, lambda forward, example: forward), *KNOWN_PATHS):
        if not path.fits(device, Machine.here(device)) or (path.thorough and not thorough):
            continue
        started = time.perf_counter()
        try:
            forward = path.build(eager, inputs)
            _once(forward, inputs)
        except Exception as error:  # noqa: BLE001 - whatever a library raises, the others are still measured
            notes.append(f"{path.name}: {type(error).__name__}")
            continue
        forwards[path.name], seconds[path.name] = forward, time.perf_counter() - started
    return forwards, seconds, notes


def _once(forward: Forward, inputs: torch.Tensor) -> np.ndarray:
    with inference():
        return to_host(forward(inputs))


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measure(model: Model, folder: Path, rounds: int, thorough: bool) -> bool:
    """Print the rows of one model; whether the chosen path is as fast as wanted."""
    tower = opened(model, folder)
    if tower is None:
        return True
    forwards, building, notes = built(tower, thorough)
    device = tower.execution.device
    inputs = to_device(tower.inputs(sample_images(BATCH)), device)
    times: dict[str, list[float]] = {name: [] for name in forwards}
    for _ in range(rounds):
        for name, forward in forwards.items():
            times[name].append(_seconds(lambda forward=forward: _once(forward, inputs)))  # type: ignore[misc]
    rows = {name: _once(forward, inputs).astype(np.float64) for name, forward in forwards.items()}
    frames = sample_images(TAKE)
    slow = _seconds(lambda: tower.encode(frames))
    started = time.perf_counter()
    choice = calibrate_now(tower, thorough=thorough)
    calibrating = time.perf_counter() - started
    assert choice is not None
    tower.encode(frames)
    whole = statistics.median(_seconds(lambda: tower.encode(frames)) for _ in range(rounds))
    for name, seconds in times.items():
        ratio = _ratio(times, name)
        mark = f" **chosen**, {_of(choice)}" if name == choice.path else ""
        print(
            f"| {model.name} | {name}{mark} | {BATCH / statistics.median(seconds):.1f} | {ratio:.2f} | "
            f"{_cosine(rows[name], rows[EAGER]):.5f} | {building[name]:.1f} |"
        )
    bare = BATCH / statistics.median(times[choice.path])
    print(
        f"| {model.name} | encode | {TAKE / whole:.1f} | {slow / whole:.2f} | | calibration {calibrating:.1f} |",
        flush=True,
    )
    for note in notes:
        print(f"| {model.name} | {note} | | | | |")
    held = model.wanted and (not model.with_bfloat16 or has_bfloat16(device, Machine.here(device)))
    fast_enough = not held or device.type != "cpu" or _ratio(times, choice.path) >= model.wanted
    return fast_enough and (device.type == "cpu" or TAKE / whole >= WANTED_OF_BARE * bare)


def _ratio(times: dict[str, list[float]], name: str) -> float:
    """Times eager: the median over rounds, in each of which both were measured."""
    return statistics.median(eager / own for eager, own in zip(times[EAGER], times[name], strict=True))


def _cosine(rows: np.ndarray, others: np.ndarray) -> float:
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
    return float((np.einsum("nd,nd->n", rows, others) / lengths).min())


def _of(choice: Choice) -> str:
    return f"batches of {choice.sizes[0]}" if len(choice.sizes) == 1 else f"batches up to {choice.sizes[-1]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", default=",".join(model.name for model in MODELS))
    parser.add_argument("--thorough", action="store_true")
    options = parser.parse_args()
    wanted = set(options.models.split(","))
    facts = Machine.here(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    reduced = ", ".join(feature for feature in facts.features if "bf16" in feature) or "no bfloat16"
    print(f"{facts.cpu}, {facts.threads} threads, {facts.device}; {reduced}; {', '.join(facts.versions)}\n")
    print("| model | path | images/s | times eager | least cosine | seconds to build |\n|---|---|---|---|---|---|")
    met = True
    with tempfile.TemporaryDirectory(prefix="precedent-bench-") as folder:
        for model in MODELS:
            if model.name in wanted:
                met &= measure(model, Path(folder), options.rounds, options.thorough)
    targets = ", ".join(f"{model.name} {model.wanted}" for model in MODELS if model.wanted)
    print(f"\nWanted of the chosen path, times eager: {targets}.")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
