"""End-to-end indexing against the encoder alone on the same images, and peak memory at N and 4N files.

    python -m benchmarks.bench_indexing [--files 200] [--repeats 3] [--encoder classical] [--workers 0]

Files are phantom radiographs, DICOM, each with pixels of its own. "Encoder alone" has the decoded frames in memory
and does nothing but ``encode``, in the batches that indexing uses. The two are measured in turn, each in a process of
its own, and the medians compared. Exits 1 when indexing is below 90 % of the encoder, or memory grows with the files.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
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
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import Image

WANTED_RATIO = 0.9
ALLOWED_GROWTH_MB = 64.0
ORIGINALS = 12  # phantoms drawn; the others are these with noise of their own
COLUMNS = 512


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


def measure_index(folder: Path, encoder: str, workers: int) -> dict[str, float]:
    """Seconds from the first file walked to the last case durable, and peak memory of this process in MB."""
    with tempfile.TemporaryDirectory(prefix="precedent-bench-") as home:
        settings = Settings(home=Path(home), encoder=encoder, workers=workers)
        sandbox = Sandbox(worker_count(settings), Limits.of(settings))
        with Gallery.open(settings, create=True) as gallery, sandbox:
            gallery.encoder.encode([_grey()])  # its first call may compile or load
            started = time.perf_counter()
            report = index(gallery, sandbox, [folder], Options())
            seconds = time.perf_counter() - started
    if not report.ok:
        raise SystemExit(f"Indexing failed: {report.failures[:3]}")
    return {"seconds": seconds, "images": report.frames, "peak_mb": _peak_mb()}


def measure_encoder(folder: Path, encoder: str, workers: int) -> dict[str, float]:
    """Seconds of encoding alone, the frames decoded beforehand."""
    settings = Settings(workers=workers)
    with Sandbox(worker_count(settings), Limits.of(settings)) as sandbox:
        scans = [scan for scan in sandbox.scan(walk([folder])) if not isinstance(scan, Rejection)]
        replies = sandbox.read(Wanted(scan.source, scan.format) for scan in scans)
        images = [reply.image for reply in replies if not isinstance(reply, Rejection)]
    model = open_encoder(encoder)
    model.encode([_grey()])
    started = time.perf_counter()
    for start in range(0, len(images), BATCH_FRAMES):
        model.encode(images[start : start + BATCH_FRAMES])
    return {"seconds": time.perf_counter() - started, "images": len(images), "peak_mb": _peak_mb()}


def _grey() -> Image:
    return Image(np.full((64, 64), 128, dtype=np.uint8))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_own_process(what: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.bench_indexing", "--measure", what, "--folder", str(folder)]
    command += ["--encoder", options.encoder, "--workers", str(options.workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="precedent-bench-files-") as temporary:
        few, many = Path(temporary, "n"), Path(temporary, "4n")
        make_files(few, options.files)
        make_files(many, 4 * options.files)
        alone, whole = [], []
        for _ in range(options.repeats):  # in turn, so that a busy machine is unfair to both
            alone.append(in_own_process("encoder", many, options))
            whole.append(in_own_process("index", many, options))
        small = in_own_process("index", few, options)
    rates = [statistics.median(run["images"] / run["seconds"] for run in runs) for runs in (alone, whole)]
    ratio = rates[1] / rates[0]
    peak = statistics.median(run["peak_mb"] for run in whole)
    growth = peak - small["peak_mb"]
    print(f"encoder {options.encoder}, {4 * options.files} files, median of {options.repeats} runs each\n")
    print("| what | images/s | runs |\n|---|---|---|")
    for name, rate, runs in zip(("encoder alone", "index, end to end"), rates, (alone, whole), strict=True):
        print(f"| {name} | {rate:.1f} | {_rates(runs)} |")
    print(f"| ratio | {ratio:.2f} | wanted: at least {WANTED_RATIO} |\n")
    print("| files | peak memory, MB |\n|---|---|")
    print(f"| {options.files} | {small['peak_mb']:.0f} |\n| {4 * options.files} | {peak:.0f} |")
    return 0 if ratio >= WANTED_RATIO and growth <= ALLOWED_GROWTH_MB else 1


def _rates(runs: list[dict[str, float]]) -> str:
    return ", ".join(f"{run['images'] / run['seconds']:.1f}" for run in runs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200, help="N; 4N files are indexed too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encoder", default="classical")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--measure", choices=["index", "encoder"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure = measure_index if options.measure == "index" else measure_encoder
        print(json.dumps(measure(options.folder, options.encoder, options.workers)))
        return 0
    return compare(options)


if __name__ == "__main__":
    raise SystemExit(main())
