"""Does an encoder keep its promises on this machine? Measured on frames, or a volume, that are made here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.encoders import Encoder, TextEncoder
from retrieval.encoders.base import EncoderCard, VolumeEncoder
from retrieval.encoders.paths.prepare import calibrate_now, follow_choice
from retrieval.encoders.paths.samples import sample_images
from retrieval.encoders.volumes.volume import Geometry, Volume
from retrieval.types import Image, UnitRows

FRAMES = 8
SAME = 0.99999  # least cosine of two encodings of one frame
_UNIT = 1e-3
_SENTENCES = ("chest x-ray, no finding.", "brain MRI, tumour.")


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise and how it was kept."""

    promise: str
    kept: bool
    measured: str


@dataclass(frozen=True, slots=True)
class EncoderCheck:
    """``milliseconds``: of one frame (a volume for 3D) in a batch of ``FRAMES``, the least of three runs. ``path``: how
    the network is run, in words."""

    card: EncoderCard
    findings: tuple[Finding, ...]
    milliseconds: float
    path: str

    @property
    def ok(self) -> bool:
        return all(finding.kept for finding in self.findings)


def check_encoder(encoder: Encoder, home: Path, *, calibrate: bool = False) -> EncoderCheck:
    """Measure it. ``home``: where a fast path chosen before is kept; ``calibrate`` measures the paths anew, keeping
    nothing."""
    choice = calibrate_now(encoder) if calibrate else follow_choice(encoder, home)
    if isinstance(encoder, VolumeEncoder):
        findings, milliseconds = _of_volumes(encoder)
    else:
        findings, milliseconds = _of_frames(encoder)
    path = choice.sentence if choice else "No faster path has been chosen: encoding as the model is."
    return EncoderCheck(encoder.card, tuple(findings), milliseconds, path)


def _of_frames(encoder: Encoder) -> tuple[list[Finding], float]:
    images = [*sample_images(FRAMES - 2), _slice(), Image(np.zeros((64, 64), np.uint8))]
    together = encoder.encode(images)
    findings = [
        _unit(together, len(images), encoder.card.dim),
        _same("the same frames again give the same vectors", together, encoder.encode(images)),
        _same("alone or in a batch", together, np.concatenate([encoder.encode([image]) for image in images])),
        _apart(together[:-1]),
    ]
    if isinstance(encoder, TextEncoder) and encoder.card.text:
        words = encoder.encode_text(_SENTENCES)
        findings += [_unit(words, len(_SENTENCES), encoder.card.dim, "sentences")]
        findings += [_same("the same sentences again", words, encoder.encode_text(_SENTENCES))]
    return findings, _least_milliseconds(lambda: encoder.encode(images)) / len(images)


def _of_volumes(encoder: VolumeEncoder) -> tuple[list[Finding], float]:
    recipe = encoder.card.volume
    volume = _phantom(recipe.modalities[0] if recipe and recipe.modalities else "")
    rows = encoder.encode_volume(volume).rows
    findings = [
        _unit(rows, len(rows), encoder.card.dim, "patches"),
        _same("the same volume again gives the same vectors", rows, encoder.encode_volume(volume).rows),
    ]
    return findings, _least_milliseconds(lambda: encoder.encode_volume(volume))


def _unit(rows: UnitRows, count: int, dim: int, what: str = "frames") -> Finding:
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    far = float(np.abs(lengths - 1).max(initial=0))
    kept = rows.shape == (count, dim) and bool(np.isfinite(rows).all()) and far < _UNIT
    return Finding(f"a vector of length 1 for each of the {what}", kept, f"{rows.shape}, off by {far:.1e}")


def _same(promise: str, one: UnitRows, other: UnitRows) -> Finding:
    least = float(np.einsum("nd,nd->n", one, other, dtype=np.float64).min())
    return Finding(promise, least >= SAME, f"least cosine {least:.7f}")


def _apart(rows: UnitRows) -> Finding:
    cosines = rows @ rows.T
    most = float(cosines[np.triu_indices(len(rows), 1)].max())
    return Finding("different frames give different vectors", most < 1 - 1e-6, f"greatest cosine {most:.4f}")


def _least_milliseconds(run: Callable[[], object]) -> float:
    return min(_milliseconds(run) for _ in range(3))


def _milliseconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1e3


def _slice() -> Image:
    """The middle slice of the phantom, a CT in Hounsfield units."""
    voxels = _phantom().voxels
    return Image(voxels[len(voxels) // 2], modality="CT", spacing=(1.5, 1.5))


def _phantom(modality: str = "CT") -> Volume:
    """A trunk of water with two lungs and a spine, [64, 256, 256] of int16 HU, 3 x 1.5 x 1.5 mm."""
    slices, rows, columns = np.mgrid[-1:1:64j, -1:1:256j, -1:1:256j].astype(np.float32)
    voxels = np.full(slices.shape, -1000, np.int16)
    for centre, radii, value in _ellipsoids():
        inside = ((slices - centre[0]) / radii[0]) ** 2
        inside += ((rows - centre[1]) / radii[1]) ** 2
        inside += ((columns - centre[2]) / radii[2]) ** 2
        voxels[inside < 1] = value
    corners = tuple((0.0, 0.0, 3.0 * n) for n in range(len(voxels)))
    shape = (len(voxels), rows.shape[1], rows.shape[2])
    return Volume(voxels, Geometry(shape, corners, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.5, 1.5)), modality)


def _ellipsoids() -> Iterator[tuple[tuple[float, float, float], tuple[float, float, float], int]]:
    """(centre, radii, HU), each painted over those before; the axes as the slices run, downwards, to the left."""
    yield (0, 0, 0), (2, 0.6, 0.85), 20
    yield (0.3, -0.05, -0.4), (0.6, 0.4, 0.28), -830
    yield (0.3, -0.05, 0.4), (0.6, 0.4, 0.28), -830
    yield (0, 0.4, 0), (2, 0.1, 0.1), 350
    yield (0.3, 0.1, 0.45), (0.08, 0.06, 0.06), 40
