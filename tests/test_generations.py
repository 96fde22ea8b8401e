from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import ConflictError, CorruptIndex, StorageFull, StoreError, StoreTooNew
from retrieval.generations import (
    BUILDING,
    NAME,
    check_generation,
    open_generation,
    publishing,
    sweep,
    write,
)
from retrieval.indexes import index_type
from retrieval.manifest import MANIFEST_FILE, Facts, Manifest
from retrieval.types import UnitRows

DIM = 16
COUNT = 600


def unit_rows(count: int = COUNT, seed: int = 0) -> UnitRows:
    rows = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def filling(backend: str = "exact", options: str = "", seed: int = 0) -> Callable[[Path], Facts]:
    def fill(directory: Path) -> Facts:
        batches = [(np.arange(1, COUNT + 1), unit_rows(seed=seed))]
        index = index_type(backend).build(directory, batches, DIM, options)
        return Facts(backend, index.options, DIM, "classical-0123", COUNT, COUNT, 0)

    return fill


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "generations"
    with publishing(root):
        pass
    return root


def visible(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name != ".lock")


@pytest.mark.parametrize(("backend", "options"), [("exact", ""), ("faiss", "SQfp16"), ("faiss", "IVF4,SQ8,nprobe=2")])
def test_what_was_written_is_what_opens(root: Path, backend: str, options: str) -> None:
    manifest = write(root, filling(backend, options))
    assert NAME.fullmatch(manifest.name)
    assert visible(root) == [manifest.name]
    read, index = open_generation(root, manifest.name, manifest.sha256)
    assert read == manifest
    assert (index.name, index.options, len(index)) == (backend, options, COUNT)
    allowed = np.arange(1, COUNT + 1)
    assert index.search(unit_rows()[:20], 1, allowed)[0].ravel().tolist() == list(range(1, 21))


def test_names_sort_by_age_and_are_never_reused(root: Path) -> None:
    names = [write(root, filling(seed=seed)).name for seed in range(3)]
    assert names == sorted(names)
    assert [name[:7] for name in names] == ["g000001", "g000002", "g000003"]


def test_any_flipped_bit_is_noticed(root: Path) -> None:
    manifest = write(root, filling("faiss", "SQfp16"))
    rng = np.random.default_rng(0)
    for path in sorted((root / manifest.name).iterdir()):
        whole = path.read_bytes()
        for at in [0, len(whole) - 1, *rng.integers(0, len(whole), 60).tolist()]:
            damaged = bytearray(whole)
            damaged[at] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(damaged)
            with pytest.raises(CorruptIndex, match="rebuild the index"):
                open_generation(root, manifest.name, manifest.sha256)
        path.write_bytes(whole)
    open_generation(root, manifest.name, manifest.sha256)


def test_truncated_longer_missing_foreign_linked_and_swapped_files_are_noticed(root: Path, tmp_path: Path) -> None:
    manifest = write(root, filling())
    other = write(root, filling(seed=1))
    directory = root / manifest.name
    sound = tmp_path / "sound"
    shutil.copytree(directory, sound)

    def link() -> None:
        shutil.move(directory / "vectors.npy", tmp_path / "vectors.npy")
        (directory / "vectors.npy").symlink_to(tmp_path / "vectors.npy")

    damages: list[Callable[[], object]] = [
        lambda: os.truncate(directory / "vectors.npy", 1000),
        lambda: os.truncate(directory / "keys.npy", 0),
        lambda: os.truncate(directory / "vectors.npy", (directory / "vectors.npy").stat().st_size + 4096),
        (directory / "keys.npy").unlink,
        (directory / MANIFEST_FILE).unlink,
        lambda: (directory / "stranger").write_text("?"),
        lambda: shutil.copy(root / other.name / "vectors.npy", directory),
        lambda: shutil.copy(root / other.name / MANIFEST_FILE, directory),
        lambda: shutil.rmtree(directory),
        link,
    ]
    for damage in damages:
        damage()
        with pytest.raises(CorruptIndex, match="rebuild the index"):
            open_generation(root, manifest.name, manifest.sha256)
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(sound, directory)
    open_generation(root, manifest.name, manifest.sha256)


@pytest.mark.parametrize("name", ["", "../g000001-aaaaaa", ".", "g1-aaaaaa", "g000001-aaaaaa/../x"])
def test_a_name_from_the_database_can_not_leave_the_store(root: Path, name: str) -> None:
    with pytest.raises(CorruptIndex, match="named like"):
        open_generation(root, name, "0" * 64)


def rewritten(root: Path, manifest: Manifest, **changes: object) -> Manifest:
    """A manifest changed along with its hash, as only someone with the database could."""
    changed = dataclasses.replace(manifest, **changes)  # type: ignore[arg-type]
    (root / manifest.name / MANIFEST_FILE).write_bytes(changed.to_bytes())
    return changed


def test_a_manifest_that_does_not_fit_its_index_is_refused(root: Path) -> None:
    manifest = write(root, filling())
    for changes in (
        {"metric": "L2"},
        {"name": "g000009-aaaaaa"},
        {"facts": dataclasses.replace(manifest.facts, count=COUNT - 1)},
        {"facts": dataclasses.replace(manifest.facts, dim=DIM + 1)},
        {"facts": dataclasses.replace(manifest.facts, options="SQ8")},
    ):
        changed = rewritten(root, manifest, **changes)
        with pytest.raises(CorruptIndex, match="rebuild the index"):
            open_generation(root, manifest.name, changed.sha256)
    newer = rewritten(root, manifest, format=2)
    with pytest.raises(StoreTooNew, match="upgrade Precedent"):
        check_generation(root, manifest.name, newer.sha256)


def test_a_full_disk_leaves_nothing_behind(root: Path) -> None:
    before = write(root, filling())

    def fill(directory: Path) -> Facts:
        filling()(directory)
        with open("/dev/full", "wb") as file:  # the kernel's own "no space left on device"
            file.write(b"x" * 100_000)
        raise AssertionError

    with pytest.raises(StorageFull, match="No space is left"):
        write(root, fill)
    assert visible(root) == [before.name]
    open_generation(root, before.name, before.sha256)


def test_a_builder_that_fails_leaves_nothing_behind(root: Path) -> None:
    def fill(directory: Path) -> Facts:
        filling()(directory)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(root, fill)
    assert visible(root) == []


def test_a_directory_that_can_not_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be written"), publishing(tmp_path / "file" / "generations"):
        pass


def test_sweep_keeps_the_named_and_what_is_not_ours(root: Path) -> None:
    first, second, third = (write(root, filling(seed=seed)).name for seed in range(3))
    (root / ".building-0123456789ab").mkdir()
    (root / ".building-0123456789ab" / "vectors.npy").write_text("half")
    (root / "notes.txt").write_text("not ours")
    (root / "g000099-abcdef").symlink_to(root / second)
    assert sweep(root, {second}) == [".building-0123456789ab", first, third]
    assert visible(root) == sorted([second, "g000099-abcdef", "notes.txt"])


def test_a_swept_generation_goes_on_answering_where_it_is_open(root: Path) -> None:
    manifest = write(root, filling())
    _, index = open_generation(root, manifest.name, manifest.sha256)
    sweep(root, set())
    assert not (root / manifest.name).exists()
    assert index.search(unit_rows()[:5], 1)[0].ravel().tolist() == [1, 2, 3, 4, 5]


def _hold(root: Path, held: object, done: object) -> None:
    with publishing(root):
        held.set()  # type: ignore[attr-defined]
        done.wait(60)  # type: ignore[attr-defined]


def test_one_publisher_at_a_time_and_a_dead_one_does_not_count(root: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(root, held, done))
    other.start()
    assert held.wait(60)
    with pytest.raises(ConflictError, match="another process"), publishing(root):
        pass
    other.kill()
    other.join()
    with publishing(root):
        assert not [path for path in root.iterdir() if BUILDING.fullmatch(path.name)]
