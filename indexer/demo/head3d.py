"""Heads: one anatomy, seen by CT (Hounsfield units) or by MR (T1, T2, FLAIR)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from indexer.demo.findings import Chances, Finding, Volume
from indexer.demo.solids import Solid, Space, fill, scanned, within

FIELD_MM, SLICE_MM = 230.0, 5.0
_TISSUES = ("air", "scalp", "skull", "csf", "grey", "white", "blood", "oedema", "tumour", "necrosis", "plaque")
_VALUES = {
    #        air  scalp skull  csf grey white blood oedema tumour necrosis plaque
    "CT": (-1000, -20, 1050, 6, 40, 29, 72, 16, 44, 12, 24),
    "T1": (5, 820, 60, 150, 470, 660, 560, 380, 430, 190, 400),
    "T2": (5, 620, 50, 1080, 610, 430, 350, 860, 760, 1000, 840),
    "FLAIR": (5, 560, 50, 70, 560, 430, 520, 930, 780, 260, 960),
}


@dataclass(frozen=True, slots=True)
class _Head:
    """One patient's head: how much of each voxel each tissue fills, later ones over earlier ones."""

    space: Space
    layers: tuple[tuple[str, Solid], ...]


def head(chances: Chances, finding: Finding, contrast: str, slices: int, size: int) -> Volume:
    """A head; ``contrast`` is CT, T1, T2 or FLAIR. Air is -1000 HU on CT and almost nothing on MR."""
    anatomy = _anatomy(chances, finding, slices, size)
    values = dict(zip(_TISSUES, _VALUES[contrast], strict=True))
    voxels = np.full(anatomy.space.shape, float(values["air"]), dtype=np.float32)
    for tissue, share in anatomy.layers:
        fill(voxels, share, float(values[tissue]))
    if contrast == "CT":
        out = scanned(voxels, chances.visit, 4.0)
    else:
        coil = 1 + 0.06 * anatomy.space.cloud(size / 2, chances.visit)
        out = np.clip(scanned(voxels * coil, chances.visit, 14.0, 0.6), 0, None)
    return Volume(out, (SLICE_MM * 28 / slices, FIELD_MM / size, FIELD_MM / size))


def _anatomy(chances: Chances, finding: Finding, slices: int, size: int) -> _Head:
    rng = chances.body
    space = Space.of(slices, size)
    wide, long = rng.uniform(0.60, 0.66), rng.uniform(0.78, 0.85)
    depth = space.ellipsoid((0, 0, -0.28), (wide, long, 1.25))  # 1 on the skin
    folds = space.cloud(size / 17, rng)
    layers: list[tuple[str, Solid]] = [("scalp", within(depth, 0.012)), ("skull", within(depth / 0.945, 0.012))]
    layers += [("csf", within(depth / 0.865, 0.010)), ("white", within(depth / 0.845, 0.012))]
    cortex = np.clip((depth - 0.52) / 0.14, 0, 1) * within(depth / 0.845, 0.012)
    layers.append(("grey", cortex * np.clip(1.5 - np.abs(folds) / 0.42, 0, 1)))
    layers.append(("csf", cortex * np.exp(-((folds / 0.13) ** 2)) * 0.9))
    layers.append(("grey", _deep_grey(space)))
    layers.append(("csf", _ventricles(space, rng.uniform(0.85, 1.35)) * within(depth / 0.84)))
    gap = np.exp(-((space.x / 0.016) ** 2)) * within(depth / 0.85) * (np.abs(space.y) > 0.42) * 0.8
    layers.append(("csf", np.asarray(gap, np.float32)))
    layers += _base_of_skull(space, depth)
    layers += _lesion(space, depth, chances, finding)
    return _Head(space, tuple(layers))


def _deep_grey(space: Space) -> Solid:
    out = np.zeros(space.shape, dtype=np.float32)
    for side in (-1, 1):
        out = np.maximum(out, within(space.ellipsoid((side * 0.12, 0.10, -0.05), (0.085, 0.14, 0.22), 0.3 * side), 0.1))
        out = np.maximum(
            out, within(space.ellipsoid((side * 0.25, -0.05, -0.05), (0.06, 0.17, 0.25), -0.25 * side), 0.1)
        )
    return out


def _ventricles(space: Space, wide: float) -> Solid:
    """Lateral ventricles with frontal and occipital horns, third and fourth ventricle."""
    out = np.zeros(space.shape, dtype=np.float32)
    for side in (-1, 1):
        parts = (
            space.ellipsoid((side * 0.085, -0.22, 0.08), (0.048 * wide, 0.17, 0.20), -0.35 * side),
            space.ellipsoid((side * 0.10, 0.05, 0.17), (0.055 * wide, 0.27, 0.14), 0.12 * side),
            space.ellipsoid((side * 0.19, 0.33, 0.06), (0.06 * wide, 0.17, 0.20), 0.5 * side),
        )
        for part in parts:
            out = np.maximum(out, within(part, 0.09))
    out = np.maximum(out, within(space.ellipsoid((0, 0.03, -0.12), (0.022 * wide, 0.13, 0.16)), 0.15))
    return np.maximum(out, within(space.ellipsoid((0, 0.38, -0.55), (0.06, 0.05, 0.18)), 0.12))


def _base_of_skull(space: Space, depth: Solid) -> list[tuple[str, Solid]]:
    """Petrous bones and the air of the frontal sinus and ethmoid, in the lowest slices."""
    low = np.clip((-0.62 - space.z) / 0.12 + 0.5, 0, 1)
    bones = np.zeros(space.shape, dtype=np.float32)
    for side in (-1, 1):
        bones = np.maximum(bones, within(space.ellipsoid((side * 0.30, 0.12, -0.85), (0.27, 0.075, 0.24), -0.6 * side)))
    inner = within(depth / 0.93, 0.02)
    air = within(space.ellipsoid((0, -0.62, -0.95), (0.16, 0.13, 0.35)), 0.1)
    return [("skull", bones * inner * low), ("air", np.asarray(air * inner * low, np.float32))]


def _lesion(space: Space, depth: Solid, chances: Chances, finding: Finding) -> list[tuple[str, Solid]]:
    rng = chances.body
    side = 1.0 if finding.side == "L" else -1.0  # the patient's left is on the right of the image
    size = (finding.size_mm or 30.0) / FIELD_MM
    brain = within(depth / 0.84, 0.012)
    rough = 0.12 * space.cloud(space.shape[2] / 14, rng)
    where = (side * rng.uniform(0.24, 0.34), rng.uniform(-0.25, 0.3), rng.uniform(-0.05, 0.3))
    tall = size * FIELD_MM / (SLICE_MM * 28)  # the stack is 140 mm high
    spot = space.ellipsoid(where, (size, size, tall)) + rough
    if finding.name == "haemorrhage":
        return [("oedema", 0.8 * within(spot / 1.45, 0.1) * brain), ("blood", within(spot, 0.08) * brain)]
    if finding.name == "tumour":
        return [
            ("oedema", 0.85 * within((spot + 1.2 * rough) / 1.75, 0.12) * brain),
            ("tumour", within(spot, 0.07) * brain),
            ("necrosis", within(spot / 0.58, 0.1) * brain),
        ]
    if finding.name == "subdural_haematoma":
        thick = 0.5 * size
        crescent = np.clip((depth - (0.865 - thick)) / 0.02, 0, 1) * within(depth / 0.868, 0.01)
        half = np.clip((side * space.x - 0.16) / 0.08, 0, 1) * np.clip((space.z + 0.4) / 0.2, 0, 1)
        return [("blood", np.asarray(crescent * half, np.float32))]
    if finding.name == "infarct":
        wedge = space.ellipsoid((side * 0.44, where[1], where[2]), (1.2 * size, 1.5 * size, 1.6 * tall)) + rough
        return [("oedema", 0.95 * within(wedge, 0.1) * brain)]
    if finding.name == "demyelination":
        return [("plaque", _plaques(space, rng) * brain)]
    return []


def _plaques(space: Space, rng: np.random.Generator) -> Solid:
    out = np.zeros(space.shape, dtype=np.float32)
    for _ in range(16):
        side = rng.choice([-1.0, 1.0])
        where = (side * rng.uniform(0.17, 0.34), rng.uniform(-0.35, 0.4), rng.uniform(0.0, 0.4))
        long, thin = rng.uniform(0.035, 0.07), rng.uniform(0.02, 0.035)
        out = np.maximum(out, within(space.ellipsoid(where, (long, thin, 0.07), float(rng.uniform(-0.4, 0.4))), 0.2))
    return out
