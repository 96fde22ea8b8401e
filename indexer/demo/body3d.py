"""Bodies on CT, in Hounsfield units: a chest and a contrast-enhanced abdomen."""

from __future__ import annotations

import numpy as np

from indexer.demo.findings import Chances, Finding, Volume
from indexer.demo.solids import Solid, Space, Spot, fill, scanned, threads, within

FIELD_MM = 380.0
STACK_MM = 240.0
AIR, LUNG, FAT, FLUID, MUSCLE, BONE = -1000.0, -850.0, -100.0, 12.0, 55.0, 420.0


def chest(chances: Chances, finding: Finding, slices: int, size: int) -> Volume:
    """A chest CT from the diaphragm to the apices."""
    rng = chances.body
    space = Space.of(slices, size)
    wide, deep = rng.uniform(0.82, 0.92), rng.uniform(0.56, 0.64)
    voxels, skin = _trunk(space, wide, deep, rng.uniform(0.05, 0.11))
    lungs = _lungs(space, wide, deep)
    vessels = threads(space, rng, size / 11, 0.20)
    texture = 25 * space.cloud(size / 20, rng)
    for side in (-1, 1):
        fill(voxels, lungs[side], LUNG + texture - (70 if finding.name == "emphysema" else 0))
    both = np.maximum(lungs[-1], lungs[1])
    centre = np.exp(-(((np.abs(space.x) - 0.15) / 0.42) ** 2))
    fill(voxels, np.asarray(np.clip(1.2 * vessels, 0, 1) * both * centre, np.float32), 30.0)
    _mediastinum(space, voxels)
    _lung_finding(space, voxels, chances, finding, lungs)
    _skeleton(space, voxels, skin, rng)
    return _scanned(voxels, chances, slices, size)


def abdomen(chances: Chances, finding: Finding, slices: int, size: int) -> Volume:
    """An abdominal CT in the portal venous phase, kidneys at the foot, liver dome at the head."""
    rng = chances.body
    space = Space.of(slices, size)
    wide, deep = rng.uniform(0.80, 0.92), rng.uniform(0.56, 0.66)
    voxels, skin = _trunk(space, wide, deep, rng.uniform(0.10, 0.20))
    fill(voxels, within(skin / 0.80, 0.02), FAT)
    _bowel(space, voxels, skin, rng)
    liver = _liver(space, rng, deep)
    fill(voxels, liver, 18.0 if finding.name == "steatosis" else 108.0)
    veins = threads(space, rng, size / 8, 0.16)
    fill(voxels, liver * np.clip(veins, 0, 1), 150.0 if finding.name != "steatosis" else 95.0)
    fill(voxels, within(space.ellipsoid((0.56, 0.12, 0.35), (0.14, 0.24, 0.38), -0.3), 0.06), 122.0)  # spleen
    fill(voxels, within(space.ellipsoid((0.28, -0.18, 0.45), (0.22, 0.15, 0.35), 0.4), 0.08), 35.0)  # stomach
    fill(voxels, within(space.ellipsoid((0.26, -0.27, 0.5), (0.13, 0.06, 0.25)), 0.1), -900.0)  # its gas
    _kidneys(space, voxels, rng)
    fill(voxels, within(space.cylinder((0.05, 0.21), (0.052, 0.052)), 0.1) * np.ones_like(space.z), 165.0)  # aorta
    fill(voxels, within(space.cylinder((-0.09, 0.19), (0.06, 0.045)), 0.1) * np.ones_like(space.z), 140.0)  # vena cava
    _belly_finding(space, voxels, chances, finding, liver)
    _skeleton(space, voxels, skin, rng, ribs=0.35)
    return _scanned(voxels, chances, slices, size)


def _scanned(voxels: Solid, chances: Chances, slices: int, size: int) -> Volume:
    return Volume(scanned(voxels, chances.visit, 12.0), (STACK_MM / slices, FIELD_MM / size, FIELD_MM / size))


def _trunk(space: Space, wide: float, deep: float, fat: float) -> tuple[Solid, Solid]:
    """Air, skin, fat, muscle; and the distance from the middle of the body, 1 on the skin."""
    voxels = np.full(space.shape, AIR, dtype=np.float32)
    flat = (np.abs(space.x / wide) ** 2.4 + np.abs(space.y / deep) ** 2.4) ** (1 / 2.4)
    skin = np.asarray(flat + 0 * space.z, dtype=np.float32)
    fill(voxels, within(skin, 0.012), FAT)
    fill(voxels, within(skin / (1 - fat), 0.012), MUSCLE)
    return voxels, skin


def _lungs(space: Space, wide: float, deep: float) -> dict[int, Solid]:
    out = {}
    for side in (-1, 1):
        narrow = np.sqrt(np.clip(1 - ((space.z + 0.3) / 1.42) ** 2, 0.03, None))
        base = -0.62 if side < 0 else -0.74  # the liver pushes the right side up
        dome = base - 0.55 * (np.hypot(space.x - side * 0.38, space.y) / 0.5) ** 2 + 0.25
        radius = np.hypot(
            (space.x - side * 0.42 * wide) / (0.37 * wide * narrow), (space.y + 0.02) / (0.78 * deep * narrow)
        )
        share = within(np.asarray(radius, np.float32), 0.025) * np.clip((space.z - dome) / 0.06 + 0.5, 0, 1)
        out[side] = np.asarray(share, dtype=np.float32)
    return out


def _mediastinum(space: Space, voxels: Solid) -> None:
    middle = np.hypot(space.x / 0.14, (space.y - 0.0) / 0.40)
    fill(voxels, np.asarray(within(np.asarray(middle, np.float32), 0.1) * np.ones_like(space.z), np.float32), -20.0)
    heart = space.ellipsoid((0.13, -0.12, -0.42), (0.33, 0.25, 0.48), 0.5)
    fill(voxels, within(heart, 0.04), FAT)
    fill(voxels, within(heart / 0.93, 0.04), 110.0)
    fill(voxels, within(space.ellipsoid((0.17, -0.12, -0.45), (0.15, 0.11, 0.28), 0.5), 0.08), 170.0)
    tube = np.ones_like(space.z)
    fill(voxels, within(space.cylinder((0.13, 0.25), (0.065, 0.065)), 0.08) * (tube * (space.z < 0.45)), 160.0)
    fill(
        voxels,
        within(space.cylinder((-0.05, -0.14), (0.075, 0.075)), 0.08) * (tube * (space.z > -0.1) * (space.z < 0.5)),
        160.0,
    )
    fill(voxels, within(space.ellipsoid((0.03, 0.05, 0.45), (0.13, 0.27, 0.10), 0.35), 0.08), 160.0)  # arch
    fill(voxels, within(space.cylinder((0.0, 0.08), (0.045, 0.045)), 0.1) * (tube * (space.z > 0.1)), AIR)  # trachea
    for side in (-1, 1):
        hilum = space.ellipsoid((side * 0.18, 0.05, 0.05), (0.09, 0.08, 0.2))
        fill(voxels, within(hilum, 0.15), 60.0)
        fill(voxels, within(space.ellipsoid((side * 0.13, 0.09, 0.1), (0.10, 0.03, 0.06)), 0.2), AIR)


def _skeleton(space: Space, voxels: Solid, skin: Solid, rng: np.random.Generator, ribs: float = -2.0) -> None:
    """Vertebrae, and above ``ribs`` (z) the ribs, which slope down from back to front."""
    body = space.cylinder((0, 0.40), (0.105, 0.085))
    disc = 0.5 + 0.5 * np.cos(22 * space.z + float(rng.uniform(0, 6)))
    dense = np.asarray(170 + 250 * np.exp(-(((body - 0.9) / 0.15) ** 2)) - 60 * (disc > 0.9), np.float32)
    fill(voxels, within(body, 0.06) * np.ones_like(space.z), dense)
    arch = space.ellipsoid((0, 0.53, 0), (0.13, 0.075, 9.0))
    fill(voxels, within(arch, 0.1) * (0.55 + 0.45 * (disc > 0.4)), 330.0)
    fill(voxels, within(space.cylinder((0, 0.495), (0.042, 0.035)), 0.15) * np.ones_like(space.z), 20.0)  # canal
    shell = np.exp(-(((skin - 0.845) / 0.026) ** 2))
    angle = np.arctan2(np.abs(space.x), space.y)  # 0 behind, pi in front
    bars = np.cos(19 * (space.z + 0.22 * angle))
    share = shell * np.clip((bars - 0.35) / 0.3, 0, 1) * (angle < 2.5) * (space.z > ribs)
    fill(voxels, np.asarray(share, np.float32), BONE)
    if ribs < -1:
        fill(voxels, within(space.ellipsoid((0, -0.52, 0.2), (0.10, 0.035, 0.75)), 0.1), 280.0)  # sternum
        for side in (-1, 1):
            blade = space.ellipsoid((side * 0.58, 0.40, 0.62), (0.17, 0.022, 0.45), -0.5 * side)
            fill(voxels, within(blade, 0.15) * within(skin / 0.97, 0.01), 350.0)


def _lung_finding(space: Space, voxels: Solid, chances: Chances, finding: Finding, lungs: dict[int, Solid]) -> None:
    rng = chances.body
    side = 1 if finding.side == "L" else -1
    lung = lungs[side]
    where = (side * rng.uniform(0.36, 0.5), rng.uniform(-0.15, 0.2), rng.uniform(-0.2, 0.3))
    rough = 0.14 * space.cloud(space.shape[2] / 16, rng)
    if finding.name == "nodule":
        spot = _spot(space, where, finding.size_mm or 18.0) + rough
        fill(voxels, within(spot, 0.12) * lung, 45.0)
    elif finding.name == "pneumonia":
        area = space.ellipsoid((where[0], 0.15, -0.15), (0.28, 0.30, 0.42)) + 2 * rough
        bronchi = threads(space, rng, space.shape[2] / 14, 0.13)
        fill(voxels, within(area, 0.2) * lung, 25.0)
        fill(voxels, within(area, 0.2) * lung * np.clip(bronchi, 0, 1), -800.0)
    elif finding.name == "pleural_effusion":
        level = np.clip((space.y - 0.10 + 0.10 * space.z - 0.25 * np.abs(space.x)) / 0.02 + 0.5, 0, 1)
        fill(voxels, np.asarray(lung * level * (space.z < 0.35), np.float32), FLUID)
    elif finding.name == "emphysema":
        holes = np.clip((space.cloud(space.shape[2] / 18, rng) - 0.35) / 0.3, 0, 1)
        for share in lungs.values():
            fill(voxels, np.asarray(share * holes, np.float32), -985.0)


def _spot(space: Space, where: Spot, diameter_mm: float) -> Solid:
    """Distance from the middle of a ball of a diameter in mm, 1 on its surface."""
    flat, tall = diameter_mm / FIELD_MM, diameter_mm / STACK_MM
    return space.ellipsoid(where, (flat, flat, tall))


def _liver(space: Space, rng: np.random.Generator, deep: float) -> Solid:
    right = space.ellipsoid((-0.38, 0.02, 0.30), (0.37, 0.70 * deep, 0.78))
    left = space.ellipsoid((0.0, -0.22, 0.52), (0.33, 0.20, 0.42), 0.15)
    body = np.minimum(right, left) + 0.03 * space.cloud(space.shape[2] / 6, rng)
    return within(np.asarray(body, np.float32), 0.03)


def _bowel(space: Space, voxels: Solid, skin: Solid, rng: np.random.Generator) -> None:
    folds = space.cloud(space.shape[2] / 11, rng)
    place = within(skin / 0.76, 0.03) * np.clip((0.12 - space.y) / 0.05, 0, 1) * np.clip((0.35 - space.z) / 0.2, 0, 1)
    fill(voxels, np.asarray(place * np.clip(folds / 0.3 + 0.7, 0, 1), np.float32), 45.0)
    gas = np.clip((folds - 1.25) / 0.25, 0, 1) * np.clip((-0.08 - space.y) / 0.1, 0, 1)
    fill(voxels, np.asarray(place * gas, np.float32), -850.0)
    for side in (-1, 1):  # psoas
        fill(voxels, within(space.ellipsoid((side * 0.19, 0.36, -0.6), (0.085, 0.11, 0.8)), 0.1), MUSCLE)


def _kidneys(space: Space, voxels: Solid, rng: np.random.Generator) -> None:
    for side in (-1, 1):
        height = -0.30 + 0.12 * side + float(rng.normal(0, 0.03))
        kidney = space.ellipsoid((side * 0.36, 0.28, height), (0.12, 0.145, 0.42), -0.5 * side)
        fill(voxels, within(kidney, 0.05), 175.0)
        fill(voxels, within(kidney / 0.72, 0.1), 140.0)
        fill(voxels, within(space.ellipsoid((side * 0.30, 0.27, height), (0.065, 0.05, 0.2), -0.5 * side), 0.15), -40.0)


def _belly_finding(space: Space, voxels: Solid, chances: Chances, finding: Finding, liver: Solid) -> None:
    rng = chances.body
    rough = 0.10 * space.cloud(space.shape[2] / 14, rng)
    size = finding.size_mm or 35.0
    where = (rng.uniform(-0.5, -0.3), rng.uniform(-0.15, 0.15), rng.uniform(0.1, 0.5))
    if finding.name == "liver_cyst":
        fill(voxels, within(_spot(space, where, size), 0.06) * liver, 4.0)
    elif finding.name == "liver_metastases":
        for _ in range(9):
            spot = (rng.uniform(-0.62, -0.08), rng.uniform(-0.25, 0.22), rng.uniform(-0.1, 0.75))
            ball = _spot(space, spot, size * rng.uniform(0.6, 1.0)) + rough
            fill(voxels, within(ball, 0.12) * liver, 58.0)
            fill(voxels, within(ball / 0.5, 0.2) * liver, 32.0)
    elif finding.name == "kidney_tumour":
        side = 1 if finding.side == "L" else -1
        ball = _spot(space, (side * 0.45, 0.24, -0.30 + 0.12 * side), size) + rough
        fill(voxels, within(ball, 0.07), 88.0 + 22 * space.cloud(space.shape[2] / 20, rng))
        fill(voxels, within(ball / 0.45, 0.2), 35.0)
