"""What ``precedent demo`` indexes: the phantom set, and real images out of the installed libraries."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from indexer.demo.phantoms import generate
from indexer.demo.roster import Size
from indexer.demo.wheels import nibabel_files, pydicom_files

SEED = 7


class DemoInput(NamedTuple):
    """One call of ``index``: what to walk, the labels file if there is one, the name of the source."""

    paths: list[Path]
    labels: Path | None
    source: str


def build_demo_inputs(home: Path, seed: int = SEED, size: Size = "demo") -> list[DemoInput]:
    """Write the phantoms under ``HOME/demo/phantoms`` unless they are there, and list everything to be indexed."""
    folder = home / "demo" / f"phantoms-{size}-{seed}"
    done = folder / ".complete"  # written last: a killed run starts over
    if not done.exists():
        generate(folder, seed, size)
        done.touch()
    inputs = [DemoInput([folder], folder / "labels.csv", "phantom")]
    inputs += [DemoInput(paths, None, source) for source, paths in
               (("pydicom", pydicom_files()), ("nibabel", nibabel_files())) if paths]  # fmt: skip
    return inputs
