"""End-to-end indexing against the encoder alone on the same images, and peak memory at N and 4N files.

    python -m benchmarks.bench_indexing [--files 200] [--repeats 3] [--encoder SPEC] [--workers 0]

Files are phantom radiographs (DICOM), each with pixels of its own, and the radiographs of ../shared (JPEG) if they are
there. "Encoder alone" has the decoded frames in memory and does nothing but ``encode``, one batch after another, in the
batches that indexing uses. The two are measured in turn, each in a process of its own and warmed up, and the medians
compared. Both run in float32 as torch does it, and the default encoder also by the path that indexing chooses here: the
faster the encoder, the less of a core is left for decoding and storing to hide on. The CPU column
tells a busy machine: where a process took much less CPU than time, something else was running or it waited for
decoding. Exits 1 when, with the default encoder in float32, indexing is below 90 % of the encoder or memory grows with
the files; the others are shown beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from indexer.demo.chest_xray import chest_pa
from indexer.demo.dicom_out import write_picture
from indexer.demo.findings import Chances, Finding
from indexer.demo.roster import Exam, Patient
from indexer.embedder import BATCH_FRAMES
from indexer.limits import Limits
from indexer.pipeline import Options, index
from indexer.sandbox import Sandbox
from indexer.sources import Rejection, Wanted
from indexer.walk import walk
from indexer.workers import worker_count
from retrieval.encoders import open_encoder
from retrieval.encoders.paths.prepare import calibrate_now, follow_choice
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.threads import wait_briefly
from retrieval.types import Image

WANTED_RATIO = 0.9
ALLOWED_GROWTH_MB = 64.0
ORIGINALS = 12  # phantoms drawn; the others are these with noise of their own
COLUMNS = 512
REAL_JPEG = "data/cxr_nih"  # below the shared data
DEFAULT = "compact"
VIT = "vit_tiny_patch16_224"
Figures = dict[str, float]  # as it comes from the measuring process: seconds, cpu_seconds, images, peak_mb


def make_files(folder: Path, count: int) -> None:
    """``count`` chest radiographs, no two alike."""
    rng = np.random.default_rng(11)
    pictures = [chest_pa(Chances.of(11, n, 1, 0), Finding(), COLUMNS) for n in range(min(count, ORIGINALS))]
    for n in range(count):
        picture = pictures[n % len(pictures)]
        noisy = np.clip(picture.pixels + rng.integers(-20, 21, picture.pixels.shape), 0, 4095).astype(np.uint16)
        patient = Patient(n + 1, "chest", "F", 50)
        exam = Exam(patient, 1, 0, "chest_pa", "DX", "CHEST", "lung", Finding(), view="PA")
        write_picture(folder / f"{n:05d}.dcm", exam, replace(picture, pixels=noisy), seed=11)


def measure_index(folder: Path, encoder: str, workers: int, chosen: Path | None) -> Figures:
    """Seconds from the first file walked to the last case durable, encoder and decoding processes being up."""
    with tempfile.TemporaryDirectory(prefix="precedent-bench-") as home:
        precision = "auto" if chosen else "float32"
        settings = Settings(home=Path(home), encoder=encoder, workers=workers, precision=precision)
        if chosen:
            shutil.copytree(chosen, home, dirs_exist_ok=True)
        sandbox = Sandbox(worker_count(settings), Limits.of(settings))
        with Gallery.open(settings, create=True) as gallery, sandbox:
            gallery.encoder.encode([_grey()] * BATCH_FRAMES)  # its first call may compile or load
            list(sandbox.scan(islice(walk([folder]), 8)))  # and the first files start the processes
            started, cpu = time.perf_counter(), time.process_time()
            report = index(gallery, sandbox, [folder], Options())
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    if not report.ok:
        raise SystemExit(f"Indexing failed: {report.failures[:3]}")
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "images": report.frames, "peak_mb": _peak_mb()}


def measure_encoder(folder: Path, encoder: str, workers: int, chosen: Path | None) -> Figures:
    """Seconds of encoding alone, the frames decoded beforehand."""
    settings = Settings(workers=workers)
    with Sandbox(worker_count(settings), Limits.of(settings)) as sandbox:
        scans = [scan for scan in sandbox.scan(walk([folder])) if not isinstance(scan, Rejection)]
        replies = sandbox.read(Wanted(scan.source, scan.format) for scan in scans)
        images = [reply.image for reply in replies if not isinstance(reply, Rejection)]
    model = open_encoder(encoder)
    if chosen:
        follow_choice(model, chosen)
    model.encode([_grey()] * BATCH_FRAMES)
    started, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(images), BATCH_FRAMES):
        model.encode(images[start : start + BATCH_FRAMES])
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "images": len(images), "peak_mb": _peak_mb()}


def choose_path(encoder: str, home: Path) -> Figures:
    """Leaves in ``home`` which path is the fastest here, as the first run of ``precedent index`` does."""
    print(calibrate_now(open_encoder(encoder), home).sentence, file=sys.stderr)
    return {}


def _grey() -> Image:
    return Image(np.full((64, 64), 128, dtype=np.uint8))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass(frozen=True, slots=True)
class Corpus:
    """``few`` is about a quarter of ``many``, for the memory that more files take; None where that is not measured."""

    name: str
    many: Path
    few: Path | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """An encoder in float32 or, with ``chosen``, by the path whose choice that folder holds."""

    encoder: str
    chosen: Path | None = None

    def __str__(self) -> str:
        shown = self.encoder.partition("@")[0] + (" (random weights of a seed)" if "@" in self.encoder else "")
        return shown + (", by the path chosen here" if self.chosen else "")


def in_own_process(what: str, folder: Path, contender: Contender, workers: int) -> Figures:
    command = [sys.executable, "-m", "benchmarks.bench_indexing", "--measure", what, "--folder", str(folder)]
    command += ["--encoder", contender.encoder, "--workers", str(workers)]
    command += ["--chosen", str(contender.chosen)] if contender.chosen else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(corpus: Corpus, encoder: Contender, repeats: int, workers: int) -> bool:
    """Print one comparison; whether it is as wanted."""
    alone, whole = [], []
    for _ in range(repeats):  # in turn, so that a busy machine is unfair to both
        alone.append(in_own_process("encoder", corpus.many, encoder, workers))
        whole.append(in_own_process("index", corpus.many, encoder, workers))
    rates = [statistics.median(run["images"] / run["seconds"] for run in runs) for runs in (alone, whole)]
    ratio = rates[1] / rates[0]
    print(f"\nencoder {encoder}, {whole[0]['images']:.0f} images, {corpus.name}, median of {repeats} runs each\n")
    print("| what | images/s | runs | CPU of the process, ms an image |\n|---|---|---|---|")
    for name, rate, runs in zip(("encoder alone", "index, end to end"), rates, (alone, whole), strict=True):
        cpu = statistics.median(run["cpu_seconds"] / run["images"] for run in runs) * 1e3
        print(f"| {name} | {rate:.1f} | {_rates(runs)} | {cpu:.2f} |")
    print(f"| ratio | {ratio:.2f} | wanted: at least {WANTED_RATIO} | |", flush=True)
    grown = _growth(corpus, encoder, workers, whole)
    return ratio >= WANTED_RATIO and grown <= ALLOWED_GROWTH_MB


def _growth(corpus: Corpus, encoder: Contender, workers: int, whole: list[Figures]) -> float:
    """Of the peak memory from few files to many, in MB."""
    if corpus.few is None:
        return 0.0
    small = in_own_process("index", corpus.few, encoder, workers)
    peak = statistics.median(run["peak_mb"] for run in whole)
    print("\n| files | peak memory, MB |\n|---|---|")
    for count, most in ((small["images"], small["peak_mb"]), (whole[0]["images"], peak)):
        print(f"| {count:.0f} | {most:.0f} |", flush=True)
    return peak - small["peak_mb"]


def _rates(runs: list[Figures]) -> str:
    return ", ".join(f"{run['images'] / run['seconds']:.1f}" for run in runs)


def compare_all(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="precedent-bench-files-") as temporary:
        few, many = Path(temporary, "n"), Path(temporary, "4n")
        make_files(few, options.files)
        make_files(many, 4 * options.files)
        corpora = [Corpus("phantom radiographs, DICOM", many, few)]
        real = Path(os.environ.get("PRECEDENT_SHARED", Path(__file__).resolve().parents[2] / "shared")) / REAL_JPEG
        if real.is_dir():
            corpora.append(Corpus("real radiographs, JPEG", real))
        held_to = Contender(options.encoder or DEFAULT)
        chosen = Path(temporary, "chosen")
        chosen.mkdir()
        in_own_process("choice", chosen, held_to, options.workers)
        others = [] if options.encoder else ["classical", *_vision_transformer(Path(temporary))]
        contenders = [held_to, Contender(held_to.encoder, chosen), *map(Contender, others)]
        # every one is run, whatever became of those before it
        good = {
            (contender, corpus.name): compare(corpus, contender, options.repeats, options.workers)
            for contender in contenders
            for corpus in corpora
        }
    return 0 if all(fine for (contender, _), fine in good.items() if contender == held_to) else 1


def _vision_transformer(folder: Path) -> list[str]:
    """The spec of a ViT with random weights, which is as fast as one that was trained; none without timm."""
    try:
        import timm
        import torch
        from safetensors.torch import save_file
    except ImportError:
        return []
    torch.manual_seed(0)
    model = timm.create_model(VIT, pretrained=False, num_classes=0)
    save_file(model.state_dict(), folder / f"{VIT}.safetensors")
    return [f"timm:{VIT}@{folder / VIT}.safetensors"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200, help="N; 4N files are indexed too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encoder", default="", help="compact, classical and, where timm is installed, a small ViT")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--measure", choices=["index", "encoder", "choice"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--chosen", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    wait_briefly()  # as the command does
    if options.measure == "choice":
        print(json.dumps(choose_path(options.encoder, options.folder)))
        return 0
    if options.measure:
        measure = measure_index if options.measure == "index" else measure_encoder
        print(json.dumps(measure(options.folder, options.encoder, options.workers, options.chosen)))
        return 0
    return compare_all(options)


if __name__ == "__main__":
    raise SystemExit(main())
