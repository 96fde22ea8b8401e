"""What a disk, a stray copy or a hand can do to the files of a generation. Every function damages one directory.

Files are drawn evenly, so that a manifest of a kilobyte is hit as often as vectors of megabytes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

PAGE = 4096

Blow = Callable[[Path, Path, np.random.Generator], str]  # (live generation, the one before, chance) -> what was done


def contents(directory: Path) -> dict[str, bytes]:
    """Every file's bytes, by name: what is the same before and after a blow was not damaged."""
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def flip(live: Path, before: Path, rng: np.random.Generator) -> str:
    """One bit."""
    path = _any_file(live, rng)
    byte, bit = int(rng.integers(path.stat().st_size)), int(rng.integers(8))
    with path.open("r+b") as file:
        file.seek(byte)
        old = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([old ^ 1 << bit]))
    return f"bit {bit} of byte {byte} of {path.name}"


def zero_page(live: Path, before: Path, rng: np.random.Generator) -> str:
    """4 KiB at a multiple of that, or what there is of it at the end of a file."""
    path = _any_file(live, rng)
    size = path.stat().st_size
    start = int(rng.integers(-(-size // PAGE))) * PAGE
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(min(PAGE, size - start)))
    return f"page at {start} of {path.name} zeroed"


def cut(live: Path, before: Path, rng: np.random.Generator) -> str:
    path = _any_file(live, rng)
    length = int(rng.integers(path.stat().st_size))
    os.truncate(path, length)
    return f"{path.name} cut to {length} bytes"


def swap(live: Path, before: Path, rng: np.random.Generator) -> str:
    """With the other generation's file of the name; with another file of the same generation; or all of them."""
    what, path = int(rng.integers(4)), _any_file(live, rng)
    if what == 0:
        other = _any_file(live, rng)
        aside = path.with_name("aside")
        path.rename(aside)
        other.rename(path) if other != path else None
        aside.rename(other)
        return f"{path.name} and {other.name} have changed places"
    if what == 1:
        shutil.rmtree(live)
        shutil.copytree(before, live)
        return "all files are those of the generation before"
    shutil.copyfile(before / path.name, path) if (before / path.name).exists() else path.unlink()
    return f"{path.name} is that of the generation before"


BLOWS: dict[str, Blow] = {"bit flips": flip, "zeroed pages": zero_page, "truncations": cut, "swapped files": swap}


def _any_file(directory: Path, rng: np.random.Generator) -> Path:
    files = sorted(directory.iterdir())
    return files[int(rng.integers(len(files)))]
