"""A gallery embedded anew with another encoder while the old one serves, on both databases."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from indexer.anew import Anew, Terms, embed_anew, target_of
from indexer.rebuild import rebuild
from indexer.sandbox import Sandbox
from retrieval.catalog import Catalog
from retrieval.errors import ConflictError, EncoderChanged, FingerprintMismatch, NotFoundError, UsageError
from retrieval.gallery import Gallery
from retrieval.privacy import Secret
from retrieval.publish import discard, rollback
from retrieval.settings import Settings
from retrieval.shadow_figures import Gates
from retrieval.types import EmbeddedCase, Embedding
from retrieval.verify import verify
from tests.databases import embedded
from tests.processes import answer, start
from tests.studies import contents, index_all, open_gallery, texture, write_series

OTHER = "classical?recipe=letterbox-v1"  # of the same length as classical: nothing but the fingerprint tells them apart
PICTURES, SERIES = 14, 2


def wide(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Pictures that are not square, which the two encoders see differently."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{n:03d}.png" for n in range(count)]
    for n, path in enumerate(paths):
        Picture.fromarray(texture(1000 * seed + n, 40, 90)).save(path)
    return paths


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", database_url=database_url)


@pytest.fixture
def gallery(settings: Settings, tmp_path: Path, sandbox: Sandbox) -> Iterator[Gallery]:
    """Pictures and CT series in classical's space, with a generation."""
    wide(tmp_path / "in", PICTURES)
    for seed in range(SERIES):
        write_series(tmp_path / "in" / f"s{seed}", 4, seed=seed, patient=f"P{seed}")
    with Gallery.open(settings.model_copy(update={"encoder": "classical"}), create=True) as opened:
        assert index_all(opened, sandbox, tmp_path / "in").ok
        rebuild(opened)
        yield opened


def anew(
    settings: Settings,
    sandbox: Sandbox,
    spec: str = OTHER,
    *,
    gates: Gates | None = None,
    dry_run: bool = False,
    drop_missing: bool = False,
) -> Anew:
    with Catalog.open(settings.url) as catalog:
        bound = catalog.binding()
        assert bound is not None
        secret = Secret.open(settings.home / "secret.key", create=False)
        terms = Terms("exact", gates or Gates(), dry_run, drop_missing)
        return embed_anew(catalog, settings, secret, sandbox, target_of(bound, settings, spec), terms)


def held(settings: Settings) -> dict[str, tuple[str, bytes, bytes]]:
    with Gallery.open(settings) as opened:
        return contents(opened)


def test_it_ends_as_if_it_had_been_indexed_with_the_other_and_can_go_back(
    settings: Settings, gallery: Gallery, sandbox: Sandbox, tmp_path: Path
) -> None:
    before, old = contents(gallery), gallery.fingerprint
    done = anew(settings, sandbox)
    assert done.publication is not None and done.publication.live and not done.refusal
    assert (done.embedded, done.missing.keys) == (PICTURES + SERIES, [])
    assert done.publication.report.old.fingerprint == old != done.publication.report.new.fingerprint == done.fingerprint
    with open_gallery(tmp_path / "fresh", encoder=OTHER) as fresh:
        index_all(fresh, sandbox, tmp_path / "in")
        wanted = contents(fresh)
    with Gallery.open(settings) as opened:
        assert opened.fingerprint == done.fingerprint
        assert contents(opened) == wanted != before
        assert opened.state().generation == done.publication.manifest.name
        assert verify(opened.catalog, settings.home).ok
        rollback(opened.catalog, settings.home)
    assert held(settings) == before
    assert gallery.state().fingerprint == old  # opened before all that: right again
    with Catalog.open(settings.url) as catalog:
        assert verify(catalog, settings.home).ok
        assert rebuild(gallery).facts.fingerprint == old  # and with the next one, the others are dropped
        with pytest.raises(NotFoundError, match="Nothing in this gallery was embedded with"):
            catalog.by(done.fingerprint)
        assert verify(catalog, settings.home).ok


def test_searches_go_on_and_never_mix(settings: Settings, gallery: Gallery, sandbox: Sandbox) -> None:
    case_id = gallery.catalog.list_cases()[0].case_id
    wanted = [(hit.case.case_id, hit.similarity) for hit in gallery.similar_to(case_id).hits]
    answers: list[str] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            try:
                result = gallery.similar_to(case_id)
            except EncoderChanged as error:
                answers.append(str(error))
                return
            same = [(hit.case.case_id, hit.similarity) for hit in result.hits] == wanted
            answers.append("same" if same and result.fingerprint == gallery.fingerprint else "other")

    asking = threading.Thread(target=ask)
    asking.start()
    done = anew(settings, sandbox)
    asking.join(30)
    ended.set()
    assert set(answers[:-1]) == {"same"}
    assert gallery.fingerprint in answers[-1] and done.fingerprint in answers[-1] and "restart" in answers[-1]
    late = embedded("late", slices=1)
    rows = np.eye(1, gallery.encoder.card.dim, dtype=np.float32)
    with pytest.raises(FingerprintMismatch):  # nothing is written by the old encoder any more
        gallery.add([EmbeddedCase(late.case, Embedding(rows[0], rows, (0,)))])


def test_what_comes_meanwhile_is_embedded_too(
    settings: Settings, gallery: Gallery, sandbox: Sandbox, tmp_path: Path
) -> None:
    more = wide(tmp_path / "more", 3, seed=7)
    arrived: list[int] = []
    with Catalog.open(settings.url) as catalog:
        bound = catalog.binding()
        assert bound is not None

        def meanwhile(vectors: int) -> None:  # told while the new index is built: the first pass is over
            if len(arrived) < len(more):
                arrived.append(vectors)
                assert index_all(gallery, sandbox, more[len(arrived) - 1]).ok
                gallery.delete([gallery.catalog.list_cases()[0].case_id])

        done = embed_anew(
            catalog, settings, gallery.secret, sandbox, target_of(bound, settings, OTHER), Terms("exact", Gates()),
            built=meanwhile,
        )  # fmt: skip
    assert arrived and done.publication is not None and done.publication.live
    with Gallery.open(settings) as opened:
        assert len(contents(opened)) == len(opened) == opened.state().size == PICTURES + SERIES
        assert opened.state().delta == len(arrived)
        assert verify(opened.catalog, settings.home).ok


def test_a_case_whose_file_is_gone_or_changed_is_decided_by_the_user(
    settings: Settings, gallery: Gallery, sandbox: Sandbox, tmp_path: Path
) -> None:
    before = contents(gallery)
    gone, changed = tmp_path / "in" / "000.png", tmp_path / "in" / "001.png"
    gone.rename(tmp_path / "elsewhere.png")
    bytes_ = bytearray(changed.read_bytes())
    changed.write_bytes(bytes(bytes_[:-40]) + bytes(40))  # as long as before
    refused = anew(settings, sandbox)
    assert refused.publication is None and "2 cases can't be embedded anew" in refused.refusal
    assert [Path(case.path).name for case in refused.missing.listed] == ["000.png", "001.png"]
    assert "no longer where it was indexed from" in refused.missing.listed[0].reason
    assert held(settings) == before
    (tmp_path / "elsewhere.png").rename(gone)
    done = anew(settings, sandbox, drop_missing=True)  # what was embedded is not embedded again
    assert (done.embedded, len(done.missing.keys)) == (1, 1)
    dropped = done.missing.listed[0].case_id
    assert set(held(settings)) == set(before) - {dropped}
    with Catalog.open(settings.url) as catalog:
        assert verify(catalog, settings.home).ok
        with pytest.raises(NotFoundError):
            catalog.case(dropped)


def test_a_file_with_other_pixels_of_the_same_size_is_not_taken(
    settings: Settings, gallery: Gallery, sandbox: Sandbox, tmp_path: Path
) -> None:
    target = next((tmp_path / "in" / "s0").rglob("*.dcm"))
    raw = bytearray(target.read_bytes())
    raw[-100] ^= 1  # one pixel
    target.write_bytes(raw)
    refused = anew(settings, sandbox)
    assert "1 cases can't be embedded anew (1: A file of it has changed" in refused.refusal


def test_a_dry_run_or_a_refusal_changes_nothing_and_what_it_embedded_serves_the_next(
    settings: Settings, gallery: Gallery, sandbox: Sandbox
) -> None:
    before, live = contents(gallery), gallery.state()
    tried = anew(settings, sandbox, dry_run=True)
    assert tried.publication is not None and not tried.publication.live and tried.embedded == PICTURES + SERIES
    refused = anew(settings, sandbox, gates=Gates(min_overlap=1.0, max_loss=0.0))
    assert refused.embedded == 0
    assert gallery.state() == live and held(settings) == before
    assert len(list((settings.home / "generations").glob("g*"))) == 1
    with Catalog.open(settings.url) as catalog:
        with pytest.raises(ConflictError, match="was begun and has not ended"):
            anew(settings, sandbox, "classical?recipe=ct-lung-v1")
        assert catalog.by(tried.fingerprint).count_lacking() == 0
        discard(catalog, settings.home)
        assert catalog.staged() is None
        with pytest.raises(NotFoundError):
            catalog.by(tried.fingerprint)
    assert gallery.state() == live and held(settings) == before


def test_going_back_needs_vectors_of_every_case(
    settings: Settings, gallery: Gallery, sandbox: Sandbox, tmp_path: Path
) -> None:
    old = gallery.fingerprint
    anew(settings, sandbox)
    late = wide(tmp_path / "late", 1, seed=9)
    with Gallery.open(settings) as opened:
        assert index_all(opened, sandbox, late[0]).ok
        with pytest.raises(ConflictError, match="1 cases came after the gallery was embedded anew"):
            rollback(opened.catalog, settings.home)
        assert opened.state().size == PICTURES + SERIES + 1
    back = anew(settings, sandbox, "classical")
    assert (back.embedded, back.fingerprint) == (1, old)  # just the one
    assert gallery.state().size == PICTURES + SERIES + 1
    assert verify(gallery.catalog, settings.home).ok


def test_another_pooling_is_another_fingerprint(settings: Settings, gallery: Gallery, sandbox: Sandbox) -> None:
    stated = Settings(home=settings.home, database_url=settings.database_url, pooling="max")
    done = anew(stated, sandbox, "")
    assert done.publication is not None and done.publication.live
    assert done.fingerprint == gallery.fingerprint.replace("mean-256", "max-256")


def test_its_own_encoder_is_no_other(settings: Settings, gallery: Gallery, sandbox: Sandbox) -> None:
    with pytest.raises(UsageError, match="nothing to embed anew"):
        anew(settings, sandbox, "classical")


def embedded_with_other(catalog: Catalog) -> int:
    staged = catalog.staged()
    return catalog.count() - catalog.by(staged.fingerprint).count_lacking() if staged else 0


def test_killed_at_any_moment_it_goes_on_and_nothing_is_embedded_twice(tmp_path: Path, sandbox: Sandbox) -> None:
    home, count = tmp_path / "home", 320
    wide(tmp_path / "in", count)
    with open_gallery(home) as opened:
        assert index_all(opened, sandbox, tmp_path / "in").ok
    stored, kills, rng = 0, 0, np.random.default_rng(0)
    with Catalog.open(f"sqlite:///{home / 'catalog.sqlite3'}") as catalog:
        live = catalog.heads()
        while kills < 2 and stored < count:  # a slow machine may see all of them stored before it kills
            process = start("rebuild", "--encoder", OTHER, "--json", home=home)
            while process.poll() is None and embedded_with_other(catalog) <= stored:
                time.sleep(0.01)
            time.sleep(float(rng.uniform(0, 0.05)))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL, "it was over before it could be killed"
            kills, stored = kills + 1, embedded_with_other(catalog)
            assert catalog.heads() == live and catalog.staged() is not None
    assert kills and stored
    done = answer("rebuild", "--encoder", OTHER, home=home)
    assert done["live"] and done["embedded"] == count - stored
    with Gallery.open(home) as opened:
        assert opened.fingerprint == opened.state().fingerprint == done["fingerprint"]
        assert verify(opened.catalog, home).ok
        assert rollback(opened.catalog, home).fingerprint == live.encoder
