"""The pixels of uploads are in a backup, those of its cases and no others, whatever is deleted meanwhile."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.intake import add_files, delete_cases
from indexer.kept_names import kept_files, kept_names
from indexer.originals import read_frames
from indexer.sandbox import Sandbox
from retrieval.backups import Backup, KeptFiles, backup, restore
from retrieval.backups.manifest import KEY
from retrieval.catalog import Catalog
from retrieval.gallery import Gallery
from retrieval.publish import publish
from tests.studies import contents, open_gallery, texture, write_pictures


@pytest.fixture
def gallery(tmp_path: Path, sandbox: Sandbox) -> Iterator[Gallery]:
    """Five uploads and an index; beside them what an upload that was cut off has left."""
    with open_gallery(tmp_path / "home") as opened:
        add_files(opened, sandbox, {path: path.name for path in write_pictures(tmp_path / "in", 5)})
        publish(opened.catalog, opened.settings.home, "exact")
        kept = opened.settings.home / "kept"
        shutil.copy(next(iter(sorted(kept.iterdir()))), kept / f"{'z' * 16}-0123456789abcdef.precedent")
        yield opened


def backed_up(gallery: Gallery, target: Path, kept: KeptFiles | None = None) -> Backup:
    return backup(gallery.catalog, gallery.settings.home, target, gallery.secret, kept or kept_files(gallery.secret))


def shown(gallery: Gallery, sandbox: Sandbox) -> set[bytes]:
    """The pixels of every case, as a viewer gets them."""
    cases = gallery.catalog.list_cases()
    return {image.pixels.tobytes() for case in cases for image in read_frames(gallery, sandbox, case, [0])}


def test_uploads_can_be_shown_again(gallery: Gallery, sandbox: Sandbox, tmp_path: Path) -> None:
    assert backed_up(gallery, tmp_path / "b").gone == 0
    restore(tmp_path / "b", tmp_path / "new", key=gallery.settings.home / KEY)
    shutil.rmtree(gallery.settings.home / "kept")
    with Gallery.open(tmp_path / "new") as again:
        assert contents(again) == contents(gallery)
        assert shown(again, sandbox) == {np.ascontiguousarray(texture(n)).tobytes() for n in range(5)}
        assert {path.name for path in (tmp_path / "new" / "kept").iterdir()} == kept_names(again.catalog, again.secret)
    assert not any(path.name.startswith("z") for path in (tmp_path / "b" / "kept").iterdir())


def meanwhile(gallery: Gallery, deed: Callable[[], None]) -> KeptFiles:
    """Does something when the catalog has been copied and the files have not."""
    known = kept_files(gallery.secret)

    def names(copied: Catalog) -> set[str]:
        deed()
        return known.names(copied)

    return KeptFiles(known.folder, names)


def test_what_is_deleted_meanwhile_is_in_it_whole(gallery: Gallery, sandbox: Sandbox, tmp_path: Path) -> None:
    """Cases deleted with their pixels, the live generation replaced and swept: a backup is the state it began with."""
    before, live = contents(gallery), gallery.catalog.heads().generation

    def delete_everything() -> None:
        delete_cases(gallery, list(before))
        publish(gallery.catalog, gallery.settings.home, "exact", keep_previous=False)
        assert not list((gallery.settings.home / "kept").glob("[!z]*"))
        assert not (gallery.settings.home / "generations" / live).exists()

    made = backed_up(gallery, tmp_path / "b", meanwhile(gallery, delete_everything))
    assert (made.gone, made.manifest.generation, made.manifest.cases) == (0, live, 5)
    restored = restore(tmp_path / "b", tmp_path / "new", key=gallery.settings.home / KEY)
    assert restored.report.ok and not restored.rebuilt
    with Gallery.open(tmp_path / "new") as again:
        assert contents(again) == before and len(shown(again, sandbox)) == 5


def test_kept_files_on_another_file_system(gallery: Gallery, sandbox: Sandbox, tmp_path: Path) -> None:
    """Where no second name can be given to a file, it is copied at once."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm as a file system of its own")
    kept = gallery.settings.home / "kept"
    with tempfile.TemporaryDirectory(dir=shm) as elsewhere:
        shutil.copytree(kept, Path(elsewhere) / "kept")
        shutil.rmtree(kept)
        kept.symlink_to(Path(elsewhere) / "kept")
        backed_up(gallery, tmp_path / "b", meanwhile(gallery, lambda: shutil.rmtree(Path(elsewhere) / "kept")))
    restore(tmp_path / "b", tmp_path / "new", key=gallery.settings.home / KEY)
    with Gallery.open(tmp_path / "new") as again:
        assert len(shown(again, sandbox)) == 5


def test_a_kept_file_that_is_gone_is_counted(gallery: Gallery, tmp_path: Path) -> None:
    name = sorted(kept_names(gallery.catalog, gallery.secret))[0]
    (gallery.settings.home / "kept" / name).unlink()
    assert backed_up(gallery, tmp_path / "b").gone == 1
    assert restore(tmp_path / "b", tmp_path / "new", key=gallery.settings.home / KEY).report.ok
