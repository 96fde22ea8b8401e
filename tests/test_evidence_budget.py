"""What a bundle costs in each of its forms, and how images are shared out among queries, cases, views and slices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from indexer.evidence_images import query_pictures, shown_of
from indexer.radfm import PLACE, most_text_of, text_of
from retrieval.errors import UsageError
from retrieval.evidence.budget import token_estimate
from retrieval.evidence.bundle import gather
from retrieval.evidence.cited import AskedWith, Evidence
from retrieval.evidence.formats import messages as chat
from retrieval.evidence.formats.markdown import markdown
from retrieval.evidence.formats.messages import Picture, messages
from retrieval.gallery import Gallery
from retrieval.types import CaseKind, EmbeddedCase, Embedding, FrameRef, Image
from tests.evidence_gallery import PLAIN, evidence_gallery

LONG = "FINDINGS: " + " ".join(f"No evidence of lesion {n}." for n in range(30)) + " IMPRESSION: Normal."
QUESTION = "Is there a lesion? " * 20
ASKED = AskedWith("views", "MG", frames=4)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """Five mammograms of four views each."""
    made = evidence_gallery(tmp_path_factory.mktemp("views"), [LONG, PLAIN, LONG, LONG, LONG])
    cases = [made.case(f"{n:016d}") for n in range(1, 6)]
    views = []
    for n, case in enumerate(cases):
        vectors = np.zeros((4, made.encoder.card.dim), dtype=np.float32)
        vectors[:, 0], vectors[range(4), range(1, 5)] = 1.0, 0.01 * (n + 1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        pooled = vectors.sum(axis=0) / np.linalg.norm(vectors.sum(axis=0))
        frames = tuple(FrameRef(each, 0, None) for each in range(4))
        case = replace(case, case_id=f"views{n}", key=0, kind=CaseKind.VIEWS, frames=frames, patient_key=f"viewed {n}")
        case = replace(case, content_sha256=f"{n + 100:064x}", pixel_sha256=f"{n + 100:064x}")
        views.append(EmbeddedCase(case, Embedding(pooled, vectors, (0, 1, 2, 3))))
    made.delete([case.case_id for case in cases])
    made.add(views)
    return made


def bundle(gallery: Gallery, written: Callable[[Evidence], str] = markdown, **asked: int) -> Evidence:
    return gather(gallery, gallery.query_of("views0"), asked=ASKED, written=written, **asked)


def written_out(evidence: Evidence, *, thumbnail: bool, question: str) -> str:
    """The text of the messages with real pictures in them."""
    shown = Picture("image/png", b"png", thumbnail)
    pictures = {ref: shown for case in evidence.cases for ref in case.images}
    system, user = messages(evidence, pictures, [shown] * evidence.own_images, question)
    return "\n".join([system["content"], *(part.get("text", "") for part in user["content"] if "text" in part)])


@pytest.mark.parametrize("max_images", [0, 3, 16])
@pytest.mark.parametrize("max_tokens", [1700, 2100, 2500])
def test_all_the_text_of_messages_is_within_the_budget(gallery: Gallery, max_tokens: int, max_images: int) -> None:
    written = partial(chat.text_of, question=QUESTION)
    evidence = bundle(gallery, written, max_tokens=max_tokens, max_images=max_images)
    assert evidence.cases and evidence.budget.tokens <= max_tokens
    assert token_estimate(written_out(evidence, thumbnail=True, question=QUESTION)) == evidence.budget.tokens
    assert token_estimate(written_out(evidence, thumbnail=False, question=QUESTION)) <= evidence.budget.tokens
    plain = bundle(gallery, max_tokens=max_tokens, max_images=max_images)
    quoted, alone = (sum(case.report.sentences - case.report.left_out for case in e.cases) for e in (evidence, plain))
    assert (quoted, len(evidence.cases)) < (alone, len(plain.cases))  # reports make room for them


def test_captions_cost_sentences(gallery: Gallery) -> None:
    few, many = (bundle(gallery, chat.text_of, max_tokens=2500, max_images=n) for n in (1, 20))
    left = [sum(case.report.left_out for case in each.cases) for each in (few, many)]
    assert len(few.cases) == len(many.cases) == 4 and left[0] < left[1] and many.budget.tokens <= 2500


def test_a_question_without_room_is_refused(gallery: Gallery) -> None:
    with pytest.raises(UsageError, match="max_tokens is 700"):
        bundle(gallery, partial(chat.text_of, question=QUESTION * 5), max_tokens=700)


def test_places_of_radfm_are_counted(gallery: Gallery) -> None:
    evidence = bundle(gallery, most_text_of, max_tokens=2000, max_images=20)
    told = text_of(evidence, {f"[{n}]": 4 for n in range(1, 5)} | {"query": 4})
    assert told.count(PLACE) == 20 and token_estimate(told) == evidence.budget.tokens <= 2000
    assert told.endswith(f"The query: {PLACE} {PLACE} {PLACE} {PLACE}")


@pytest.mark.parametrize(
    ("max_images", "own", "of_cases"),
    [
        (0, 0, [0, 0, 0, 0]),
        (1, 1, [0, 0, 0, 0]),
        (3, 1, [1, 1, 0, 0]),
        (5, 1, [1, 1, 1, 1]),
        (8, 2, [2, 2, 1, 1]),
        (20, 4, [4, 4, 4, 4]),
        (64, 4, [4, 4, 4, 4]),
    ],
)
def test_views_are_shown_as_far_as_the_budget_goes(
    gallery: Gallery, max_images: int, own: int, of_cases: list[int]
) -> None:
    evidence = bundle(gallery, max_images=max_images, max_tokens=20_000)
    assert evidence.own_images == own and [len(case.images) for case in evidence.cases] == of_cases
    assert evidence.budget.images == own + sum(of_cases) <= max_images
    for case in evidence.cases:
        slices = [ref.slice for ref in case.images]
        assert len(set(slices)) == len(slices) and set(slices) <= {0, 1, 2, 3}
        best = [match.hit_slice for match in case.matches[: len(slices)]]
        assert slices[: len(best)] == best  # what matched goes first


def test_all_views_of_the_query_are_named(gallery: Gallery) -> None:
    evidence = bundle(gallery, chat.text_of, max_images=20, max_tokens=20_000)
    told = written_out(evidence, thumbnail=False, question="").splitlines()
    assert [line for line in told if line.startswith("The query's image")] == [
        f"The query's image {n} of 4:" for n in range(1, 5)
    ]
    assert sum(line.startswith("Image of [") for line in told) == 16


def test_each_view_has_its_own_grey_levels() -> None:
    """And the slices of a stack have those of its middle."""
    ramp = np.tile(np.arange(64, dtype=np.uint16), (64, 1))
    images = [Image(ramp * 10), Image(ramp * 1000)]
    views = query_pictures(images, CaseKind.VIEWS, 2)
    stack = query_pictures(images, CaseKind.VOLUME, 2)
    assert views[0].content == views[1].content and stack[0].content != stack[1].content


def test_which_frames_are_shown() -> None:
    assert shown_of(5, 1) == [2] and shown_of(4, 3) == [0, 1, 2] and shown_of(2, 9) == [0, 1]
    assert shown_of(0, 1) == [] == shown_of(3, 0)


def test_a_number_is_that_of_the_bundle(tmp_path: Path) -> None:
    """Ids of an imported gallery may look like numbers."""
    with evidence_gallery(tmp_path, [PLAIN] * 4) as gallery:
        evidence = gather(gallery, gallery.query_of(f"{1:016d}"))
    renamed = tuple(replace(case, case_id=name) for case, name in zip(evidence.cases, "312", strict=True))
    numbered = replace(evidence, cases=renamed)
    for case in renamed:
        assert numbered.cited(str(case.number)) is case
