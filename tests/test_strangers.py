"""Drawings of nothing medical: the same ones for everybody, encoded once, and what a query is told apart from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval import Gallery
from retrieval.evidence.boundary import sides_held_out
from retrieval.evidence.closeness import DEPTH, Closeness, UsualCloseness
from retrieval.evidence.conformal import Reference
from retrieval.evidence.drawings import SIDE, drawings
from retrieval.evidence.novelty import ANY, ASSURANCE, LEAST_PATIENTS, STRANGE, Usual, judge
from retrieval.evidence.strangers import COUNT, FOLDER, Strangers
from retrieval.evidence.usual import rows_of
from retrieval.types import Attributes, Case, CaseKind, EmbeddedCase, Embedding, Image, Query, SearchResult
from tests.studies import open_gallery

DIM = 6


class Eye:
    """Sees the mean of each colour, and counts what it is shown."""

    def __init__(self) -> None:
        self.shown = 0

    def encode(self, images: Sequence[Image]) -> np.ndarray:
        self.shown += len(images)
        rows = np.array([np.r_[np.resize(image.pixels.mean(axis=(0, 1)) + 1, 3), 1, 1, 1] for image in images])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def drawn() -> tuple[Image, ...]:
    return drawings()


def test_drawings_are_the_same_ones_for_everybody_and_no_two_alike(drawn: tuple[Image, ...]) -> None:
    assert len(drawn) == COUNT
    for one, again in zip(drawn[:14], drawings(), strict=False):
        assert (one.pixels == again.pixels).all()
    assert len({image.pixels.tobytes() for image in drawn}) == COUNT
    assert {image.pixels.shape for image in drawn} == {(SIDE, SIDE), (SIDE, SIDE, 3)}
    assert all(image.pixels.dtype == np.uint8 and image.pixels.std() > 3 for image in drawn)


def test_they_are_encoded_once_and_kept(tmp_path: Path, drawn: tuple[Image, ...]) -> None:
    eye, strangers = Eye(), Strangers(tmp_path, "eye-1", DIM)
    assert strangers.rows() is None and not strangers.met
    strangers.meet(eye.encode)
    strangers.meet(eye.encode)
    assert eye.shown == COUNT and strangers.met
    later = Strangers(tmp_path, "eye-1", DIM)
    assert not later.met
    rows = later.rows()
    assert rows is not None and (rows == Eye().encode(drawn)).all() and later.met
    later.meet(eye.encode)
    assert eye.shown == COUNT
    assert Strangers(tmp_path, "eye-2", DIM).rows() is None


@pytest.mark.parametrize("damage", [b"", b"x" * 10, None])
def test_a_damaged_file_is_passed_over_and_written_again(
    tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    Strangers(tmp_path, "eye", DIM).meet(Eye().encode)
    (file,) = (tmp_path / FOLDER).iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if damage is None else damage)
    strangers = Strangers(tmp_path, "eye", DIM)
    with caplog.at_level(logging.WARNING):
        assert strangers.rows() is None
    assert "damaged" in caplog.text
    strangers.meet(Eye().encode)
    assert file.read_bytes() == whole
    assert Strangers(tmp_path, "eye", DIM + 1).rows() is None  # of another length: not to be believed either


def test_where_the_disk_refuses_this_process_has_met_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    strangers = Strangers(tmp_path, "eye", DIM)
    with caplog.at_level(logging.WARNING):
        strangers.meet(Eye().encode)
    assert strangers.met and "can't be kept" in caplog.text


def cases(gallery: Gallery, count: int, seed: int = 0) -> list[EmbeddedCase]:
    """Radiographs, as far as it goes: bright ovals on black, which no drawing is; one a patient."""
    rng, found = np.random.default_rng(seed), []
    down, across = np.mgrid[-1:1:64j, -1:1:64j]
    for n in range(count):
        oval = (down / rng.uniform(0.5, 0.8)) ** 2 + (across / rng.uniform(0.4, 0.7)) ** 2 < 1
        pixels = np.round(oval * rng.uniform(120, 220) + rng.uniform(0, 25, oval.shape)).astype(np.uint8)
        case = Case(
            case_id=f"{seed}-{n}", kind=CaseKind.IMAGE, content_sha256=f"{seed}-{n}", pixel_sha256=f"{seed}-{n}",
            patient_key=f"patient {seed}-{n}", attributes=Attributes(modality="DX", body_part="CHEST"),
        )  # fmt: skip
        found.append(EmbeddedCase(case, gallery.embed([Image(pixels)])))
    return found


def ask(gallery: Gallery, embedding: Embedding) -> SearchResult:
    return gallery.search(Query(embedding, "somebody else"))


def test_a_gallery_tells_cases_from_what_its_encoder_was_shown(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        held = cases(gallery, 150)
        gallery.add(held[: LEAST_PATIENTS - 1])
        gallery.warm_up()
        assert not (tmp_path / FOLDER).exists()  # too few to tell
        gallery.add(held[LEAST_PATIENTS - 1 :])
        new = cases(gallery, 40, seed=1)
        before = ask(gallery, new[0].embedding)
        gallery.meet_strangers()
        assert len(list((tmp_path / FOLDER).iterdir())) == 1
        results = [ask(gallery, each.embedding) for each in new]
        assert sum(found.no_confident_match for found in results) <= 4
        assert results[0].p_value != before.p_value

        snapshot = gallery.snapshot()
        rows, strangers = (
            rows_of(snapshot, snapshot.keys()),
            Strangers(tmp_path, gallery.fingerprint, snapshot.space.dim),
        )
        told = strangers.rows()
        assert told is not None
        names = [gallery.catalog.facts(snapshot.keys())[key].patient for key in snapshot.keys().tolist()]
        plane, sides = sides_held_out(rows, names, told)
        similar = rows @ rows.T - 2 * np.eye(len(rows), dtype=np.float32)
        near = np.sort(similar, axis=1)[:, -5:].mean(axis=1, dtype=np.float64)
        place = lambda value, of: -1 if value < of.min() else int((of < value).sum())  # noqa: E731
        lower = [min(place(one, near), place(other, sides)) for one, other in zip(near, sides, strict=True)]
        reference = Reference.of(lower, len(rows), STRANGE, ASSURANCE)
        for each, found in zip(new, results, strict=True):
            row = each.embedding.vector
            mine = min(
                place(np.sort(rows @ row)[-5:].mean(dtype=np.float64), near), place(plane.side(row[None])[0], sides)
            )
            share = (sum(value <= mine for value in lower) + 1) / (len(lower) + 1)
            assert found.p_value == pytest.approx(share, abs=2.5 / len(rows))  # sums of other order may change a rank
            assert found.no_confident_match == reference.strange(mine) or abs(found.p_value - STRANGE) < 0.03

        far = Embedding(told[0], told[:1], (0,))
        assert ask(gallery, far).no_confident_match


def test_the_reason_says_what_it_is_more_like(tmp_path: Path) -> None:
    """Cases are at 0.01, 0.02 ... to their likes and lie at 1.01, 1.02 ... of the boundary, 200 of them."""
    with open_gallery(tmp_path) as gallery:
        held = cases(gallery, 6)
        gallery.add(held)
        query = Query(held[0].embedding, "somebody else")
        hits = gallery.search(query).hits
    values = np.arange(1, 201) / 100
    among = UsualCloseness.of(values, np.full(200, np.nan), 200, STRANGE, ASSURANCE, values[::-1] + 1)
    usual = Usual({ANY: (among,) * DEPTH}, None, {}, {}, complete=True)
    said = [
        judge(usual, query, Closeness(5, near, 0.0, side), hits, lambda modality: True)
        for near, side in ((1.5, 1.5), (1.5, 0.5), (0.001, 1.5), (0.001, 0.5))
    ]
    few = "of the cases on file (too few patients of DX to go by those alone)."
    assert [each.reasons for each in said] == [
        (),
        (f"The query is more like drawings of nothing medical than all {few}",),
        (f"The 5 nearest cases are less similar (0.00) than those of all {few}",),
        (f"The 5 nearest cases are less similar (0.00) than those of all {few}",),
    ]
    assert [each.p_value for each in said[1:]] == [1 / 201] * 3


def test_another_encoder_or_pooling_has_its_own(tmp_path: Path) -> None:
    names = set()
    for pooling in ("mean", "max"):
        with open_gallery(tmp_path / pooling, pooling=pooling) as gallery:
            gallery.add([replace(each) for each in cases(gallery, LEAST_PATIENTS)])
            gallery.meet_strangers()
            names |= {path.name for path in (tmp_path / pooling / FOLDER).iterdir()}
    assert len(names) == 2
