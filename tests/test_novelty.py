"""No confident match, end to end through ``Gallery.search``, against NumPy over all vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval import Gallery
from retrieval.evidence.modalities import kind_of, names_of
from retrieval.evidence.novelty import ASSURANCE, STRANGE, Agreement
from retrieval.evidence.strangers import Strangers
from retrieval.evidence.usual import Norms
from retrieval.filters import parse
from retrieval.types import (
    Attributes,
    Case,
    CaseKind,
    EmbeddedCase,
    Embedding,
    GroupBy,
    Query,
    SamePatient,
    SearchResult,
)  # fmt: skip
from tests.studies import open_gallery

KINDS = (("CT", "CHEST"), ("CT", "KNEE"), ("MR", "HEAD"))
PATIENTS = 120  # of each kind, two cases a patient
SPREAD = 0.9


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


class World:
    """Cases of three kinds, each around a centre of its own."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.centres = unit(np.random.default_rng(7).normal(size=(len(KINDS), dim)))

    def draw(self, kind: int, count: int, seed: int) -> np.ndarray:
        """Half of what tells a case is its kind, half is its own, in few directions."""
        rng = np.random.default_rng([seed, kind])
        directions = unit(np.random.default_rng([kind]).normal(size=(8, self.dim)))
        return unit(self.centres[kind] + SPREAD * unit(rng.normal(size=(count, 8)) @ directions))

    def cases(self, kind: int, patients: int, seed: int = 0) -> list[EmbeddedCase]:
        modality, body_part = KINDS[kind]
        rows = self.draw(kind, 2 * patients, seed)
        return [
            EmbeddedCase(
                Case(
                    case_id=f"{kind}-{seed}-{n:04d}", kind=CaseKind.IMAGE, content_sha256=f"{kind}-{seed}-{n}",
                    pixel_sha256=f"{kind}-{seed}-{n}", patient_key=f"patient {kind}-{seed}-{n // 2}",
                    attributes=Attributes(modality=modality, body_part=body_part),
                ),
                Embedding(row, row[None, :], (0,)),
            )
            for n, row in enumerate(rows)
        ]  # fmt: skip


def ask(gallery: Gallery, row: np.ndarray, *, k: int = 10, modality: str = "", body_part: str = "") -> SearchResult:
    return gallery.search(Query(Embedding(row, row[None, :], (0,)), modality=modality, body_part=body_part), k=k)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gallery, World]]:
    with open_gallery(tmp_path_factory.mktemp("novelty")) as gallery:
        world = World(gallery.encoder.card.dim)
        for kind in range(len(KINDS)):
            gallery.add(world.cases(kind, PATIENTS))
        yield gallery, world


def nearest_five(row: np.ndarray, rows: np.ndarray, patients: np.ndarray, own: str = "") -> np.ndarray:
    """Positions of the five nearest, one per patient, none of the patient ``own``."""
    found: list[int] = []
    for n in np.argsort(-(rows @ row), kind="stable"):
        if patients[n] != own and patients[n] not in {patients[m] for m in found}:
            found.append(int(n))
            if len(found) == 5:
                break
    return np.array(found)


def two_figures(row: np.ndarray, rows: np.ndarray, near: np.ndarray) -> tuple[float, float]:
    own = float(np.mean(rows[near] @ row))
    return own, own - float(np.mean((rows[near] @ rows[near].T)[~np.eye(5, dtype=bool)]))


def test_p_values_are_those_of_numpy_over_all_cases(filled: tuple[Gallery, World]) -> None:
    gallery, world = filled
    everything = [each for kind in range(len(KINDS)) for each in world.cases(kind, PATIENTS)]
    rows = np.stack([each.embedding.vector for each in everything])
    patients = np.array([each.case.patient_key for each in everything])
    ct = [n for n, each in enumerate(everything) if each.case.attributes.modality == "CT"]
    usual = np.array([two_figures(rows[n], rows, nearest_five(rows[n], rows, patients, patients[n])) for n in ct])

    def rank(value: float, column: int) -> float:
        smaller = int((usual[:, column] < value).sum())
        return smaller if value >= usual[:, column].min() else -1

    joint = np.array([min(rank(near, 0), rank(apart, 1)) for near, apart in usual])
    queries = [*world.draw(0, 6, seed=50), *world.draw(1, 4, seed=51), unit(world.centres[0] + 3 * world.centres[1])]
    for row in queries:
        mine = two_figures(row, rows, nearest_five(row, rows, patients))
        lower = min(rank(mine[0], 0), rank(mine[1], 1))
        expected = (1 + int((joint <= lower).sum())) / (len(joint) + 1)
        assert ask(gallery, row, modality="CT").p_value == pytest.approx(expected, abs=0.005)  # float32 ties apart


def test_of_its_own_kinds_it_refuses_few_and_of_others_all(filled: tuple[Gallery, World]) -> None:
    gallery, world = filled
    own = [ask(gallery, row) for kind in range(len(KINDS)) for row in world.draw(kind, 100, seed=9)]
    assert np.mean([found.no_confident_match for found in own]) <= 0.05
    assert all(bool(found.reasons) == found.no_confident_match and not found.cautions for found in own)
    strangers = unit(np.random.default_rng(3).normal(size=(40, world.dim)))
    for row in strangers:
        found = ask(gallery, row)
        assert found.no_confident_match and found.hits and found.p_value is not None and found.p_value < 0.05
        assert ("on file." in found.reasons[0] and "%" in found.reasons[0]) or "all of the" in found.reasons[0]


def test_the_reason_names_figures_and_modality(filled: tuple[Gallery, World]) -> None:
    gallery, world = filled
    row = unit(np.random.default_rng(4).normal(size=world.dim))
    found = ask(gallery, row, modality="CT")
    near = np.mean([hit.similarity for hit in found.hits[:5]])
    assert found.reasons[0].startswith(
        f"The 5 nearest cases are less similar ({near:.2f}) than those of all of the CT cases"
    )


def test_how_many_hits_are_wanted_changes_no_verdict(filled: tuple[Gallery, World]) -> None:
    gallery, world = filled
    for row in (*world.draw(1, 5, seed=20), *unit(np.random.default_rng(5).normal(size=(5, world.dim)))):
        ten, one = ask(gallery, row), ask(gallery, row, k=1)
        assert len(one.hits) == 1 and one.hits == ten.hits[:1]
        assert (one.reasons, one.p_value) == (ten.reasons, ten.p_value)
        every = gallery.search(Query(Embedding(row, row[None, :], (0,))), k=30, group=GroupBy.NONE)
        assert every.p_value == ten.p_value  # several cases of a patient count as one


def test_a_case_on_file_asks_as_what_it_is(filled: tuple[Gallery, World]) -> None:
    gallery, _ = filled
    query = gallery.query_of("2-0-0001")
    assert (query.modality, query.body_part) == ("MR", "HEAD")
    assert not gallery.search(query).no_confident_match
    alone = gallery.search(query, same_patient=SamePatient.ONLY)
    assert len(alone.hits) == 1 and alone.p_value is not None  # one neighbour is compared with one neighbour
    nothing = gallery.search(query, filters=parse({"modality": "XX"}))
    assert nothing.reasons and nothing.no_confident_match and nothing.p_value is None


def test_a_header_that_its_neighbours_contradict(filled: tuple[Gallery, World]) -> None:
    gallery, world = filled
    row = world.draw(2, 1, seed=30)[0]
    assert not ask(gallery, row, modality="MRI", body_part="head").no_confident_match
    found = ask(gallery, row, modality="CT", body_part="CHEST")
    assert found.no_confident_match and "Sent as CT CHEST, its nearest cases are MR HEAD." in found.reasons
    found = ask(gallery, row, modality="PT")
    assert found.no_confident_match and "No PT case is on file: the nearest cases are MR HEAD." in found.reasons
    row = world.draw(1, 1, seed=31)[0]
    found = ask(gallery, row, modality="CT", body_part="CHEST")
    assert found.reasons == ("Sent as CT CHEST, its nearest cases are CT KNEE.",)
    found = ask(gallery, row, modality="CT", body_part="THORAX")  # nobody here calls anything so: it may be a synonym
    assert not found.no_confident_match and found.cautions == ("Sent as CT THORAX, its nearest cases are CT KNEE.",)


def test_a_modality_that_came_since_is_not_told_to_be_missing(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        world = World(gallery.encoder.card.dim)
        gallery.add(world.cases(0, 60))
        row = world.draw(0, 1, seed=3)[0]
        assert any("No MR case is on file" in reason for reason in ask(gallery, row, modality="MR").reasons)
        gallery.add(world.cases(2, 5))
        found = ask(gallery, row, modality="MR")
        assert "Sent as MR, its nearest cases are CT CHEST." in found.cautions and not found.reasons


def test_too_small_a_gallery_says_what_it_cannot_tell(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        world = World(gallery.encoder.card.dim)
        gallery.add(world.cases(0, 10))
        found = ask(gallery, unit(np.random.default_rng(0).normal(size=world.dim)))
        assert not found.no_confident_match and found.p_value is None
        needed = next(n for n in range(1, 999) if 1 - (1 - STRANGE) ** n >= ASSURANCE)
        assert f"10, where {needed} are needed" in found.cautions[0]


def test_what_is_usual_is_found_out_again_when_the_gallery_has_doubled_or_halved(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        world, norms = World(gallery.encoder.card.dim), Norms(Strangers(tmp_path, "none", gallery.encoder.card.dim))
        gallery.add(world.cases(0, 10))
        first = norms.of(gallery.catalog, gallery.snapshot())
        gallery.add(world.cases(1, 10))
        assert norms.of(gallery.catalog, gallery.snapshot()) is first
        gallery.add(world.cases(2, 1))
        second = norms.of(gallery.catalog, gallery.snapshot())
        assert second is not first
        gallery.delete([f"{kind}-0-{n:04d}" for kind in (0, 1) for n in range(16)])
        assert norms.of(gallery.catalog, gallery.snapshot()) is not second


def test_a_sentence_is_judged_by_random_pairs_as_ever(filled: tuple[Gallery, World]) -> None:
    gallery, world = filled
    row = unit(np.random.default_rng(11).normal(size=world.dim))
    query = replace(Query(Embedding(row, row[None, :], (0,))), text=row, text_weight=0.0)
    found = gallery.search(query)
    assert found.p_value is None and "random pairs" in found.reasons[0]


def test_agreement_by_hand() -> None:
    agreement = Agreement((1, 1, 2, 6))
    assert [agreement.p_value(depth) for depth in (1, 2, 5)] == [0.6, 0.4, 0.4]
    assert Agreement().p_value(5) == 1.0


def test_modalities_of_one_kind() -> None:
    assert kind_of("DX") == kind_of("cr") == kind_of(" X-ray ") and kind_of("MR") == kind_of("MRI") != kind_of("CT")
    assert kind_of("") == "" and kind_of("Dermoscopy") == "dermoscopy"
    assert {"cr", "dx"} <= set(names_of("X-RAY")) and names_of("OCT") == ("OCT",)
