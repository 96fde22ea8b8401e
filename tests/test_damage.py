"""An index whose files were damaged is never searched: a small part of ``benchmarks.reliability.damage``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from benchmarks.reliability.blows import BLOWS
from benchmarks.reliability.damage import Ground, ground, restore, sound_again, trial
from retrieval.manifest import MANIFEST_FILE, FileFact, Manifest
from retrieval.schema import generations


@pytest.fixture(scope="module", params=["exact", "faiss", "faiss:IVF8,SQ8,nprobe=8"])
def on(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("damage"), request.param) as made:
        yield made


@pytest.mark.parametrize("open_before", [False, True])
@pytest.mark.parametrize("kind", BLOWS)
def test_damage_is_noticed_before_the_first_answer(on: Ground, kind: str, open_before: bool) -> None:
    rng = np.random.default_rng(0)
    told = [trial(on, BLOWS[kind], rng, open_before=open_before) for _ in range(12)]
    assert [each.fault for each in told] == [""] * 12
    assert sum(bool(each.blow) for each in told) > 6


def test_a_repair_leaves_a_sound_index(on: Ground) -> None:
    while not trial(on, BLOWS["bit flips"], np.random.default_rng(1), open_before=False).blow:
        continue
    assert sound_again(on) == ""


def _nothing(live: Path, before: Path, rng: np.random.Generator) -> str:
    """Writes what is there already."""
    for path in live.iterdir():
        path.write_bytes(path.read_bytes())
    return "nothing"


def test_what_changes_no_byte_is_no_damage(tmp_path: Path) -> None:
    with ground(tmp_path, "exact") as on:
        assert trial(on, _nothing, np.random.default_rng(0), open_before=False).blow == ""


def test_damage_that_goes_unnoticed_would_be_told(tmp_path: Path) -> None:
    """Vectors in another order, with manifest and database row made to fit."""
    with ground(tmp_path, "exact") as on:
        live, _ = restore(on)
        vectors = np.load(live / "vectors.npy")

        def forge(live: Path, before: Path, rng: np.random.Generator) -> str:
            np.save(live / "vectors.npy", vectors[::-1])
            data = (live / "vectors.npy").read_bytes()
            told = Manifest.parse((live / MANIFEST_FILE).read_bytes(), live.name)
            fact = FileFact("vectors.npy", len(data), hashlib.sha256(data).hexdigest())
            files = tuple(fact if each.name == fact.name else each for each in told.files)
            forged = replace(told, files=files)
            (live / MANIFEST_FILE).write_bytes(forged.to_bytes())
            with on.catalog.database.write() as connection:
                row = generations.c.name == live.name
                connection.execute(update(generations).where(row).values(manifest_sha256=forged.sha256))
            return "forged"

        assert trial(on, forge, np.random.default_rng(0), open_before=False).fault == "served, and not noticed"
