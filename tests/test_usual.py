"""What is usual is asked for many cases at once: the same as asking for one after the other, whatever the index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.rebuild import rebuild
from retrieval import Gallery
from retrieval.evidence.closeness import DEPTH
from retrieval.evidence.usual import ask
from retrieval.types import Attributes, Case, CaseKind, EmbeddedCase, Embedding, Keys
from tests.studies import open_gallery

FAR = 512  # of so many nearest the ones of other patients are looked for
DEPTHS = range(1, DEPTH + 1)
MODALITIES = ("CT", "DX", "CR", "")
KIND = {"CT": "ct", "DX": "x-ray", "CR": "x-ray", "": ""}
BODY_PARTS = ("CHEST", "chest", "KNEE")


def crowd(dim: int) -> list[EmbeddedCase]:
    """800 cases. Of 40 patients with 18 cases each that lie close together; then 80 strewn ones: of patients of one
    case, of nobody known, of two patients in one study, and pictures that are there twice."""
    rng = np.random.default_rng(2)
    own = np.repeat(rng.normal(size=(40, dim)), 18, axis=0) + 0.1 * rng.normal(size=(720, dim))
    strewn = rng.normal(size=(80, dim))
    strewn[40:60] = strewn[:20]
    rows = np.concatenate([own, strewn])
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    patients = [f"patient {n // 18}" for n in range(720)] + [f"single {n}" if n % 3 else "" for n in range(80)]
    studies = [f"1.{n // 6}" for n in range(720)] + [f"2.{n // 2}" if n % 5 else "" for n in range(80)]
    return [
        EmbeddedCase(
            Case(
                case_id=f"case {n:03d}", kind=CaseKind.IMAGE, content_sha256=f"{n}", pixel_sha256=f"{n}",
                patient_key=patient, study_uid=study,
                attributes=Attributes(modality=MODALITIES[n // 18 % 4], body_part=BODY_PARTS[n // 18 % 3]),
            ),
            Embedding(row, row[None, :], (0,)),
        )
        for n, (row, patient, study) in enumerate(zip(rows, patients, studies, strict=True))
    ]  # fmt: skip


@pytest.fixture(scope="module", params=["exact", "faiss", "faiss:SQ8", "delta"])
def gallery(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """Most of it in a generation, some in the delta, some of both deleted."""
    with open_gallery(tmp_path_factory.mktemp("usual")) as opened:
        cases = crowd(opened.encoder.card.dim)
        opened.add(cases[:700])
        if request.param != "delta":
            rebuild(opened, backend=request.param)
        opened.add(cases[700:])
        opened.delete([each.case.case_id for each in cases[3::17]])
        yield opened


def test_all_at_once_is_as_one_by_one(gallery: Gallery) -> None:
    file = OnFile(gallery)
    assert len(file.keys) > 700
    check(file, file.keys, None)


def test_among_some_as_one_by_one(gallery: Gallery) -> None:
    file = OnFile(gallery)
    check(file, file.keys[1::2], file.keys[::3])


def test_keys_that_are_gone_and_cases_that_are_alone_are_left_out(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        cases = crowd(gallery.encoder.card.dim)[:18]
        gallery.add(cases)
        keys = gallery.snapshot().keys()
        assert ask(gallery.catalog, gallery.snapshot(), keys) == []  # all of them are of one patient
        other = replace(cases[0].case, case_id="other", patient_key="another", study_uid="", content_sha256="other")
        gallery.add([replace(cases[0], case=other)])
        snapshot = gallery.snapshot()
        gallery.delete([cases[5].case.case_id])
        found = ask(gallery.catalog, snapshot, snapshot.keys())  # of the state before, which still holds the sixth
        assert [each.facts.case_id for each in found] == [
            each.case.case_id for n, each in enumerate(cases) if n != 5
        ] + ["other"]
        assert {each.nearest.case_id for each in found[:-1]} == {"other"}
        assert ask(gallery.catalog, snapshot, keys[:0]) == []


class OnFile:
    """What a gallery holds, as cases and their vectors by key."""

    def __init__(self, gallery: Gallery) -> None:
        self.catalog, self.snapshot = gallery.catalog, gallery.snapshot()
        self.keys = self.snapshot.keys()
        self.cases = gallery.catalog.cases(self.keys)
        self.rows = dict(zip(self.keys.tolist(), gallery.catalog.vectors_of(self.keys)[1], strict=True))

    def nearest(self, key: int, among: Keys | None) -> list[tuple[int, float]]:
        """Others with their similarities, found by a single search for this case that goes as far as may be gone."""
        found, similarities, _ = self.snapshot.search(self.rows[key][None, :], min(FAR, len(self.keys)), among)
        own, met, nearest = self.cases[key], set[str](), list[tuple[int, float]]()
        for other_key, similarity in zip(found[0].tolist(), similarities[0].tolist(), strict=True):
            if other_key in (-1, key):
                continue
            other = self.cases[other_key]
            same_patient = other.patient_key != "" and other.patient_key in met | {own.patient_key}
            same_study = other.study_uid != "" and other.study_uid == own.study_uid
            if not same_patient and not same_study:
                nearest.append((other_key, similarity))
                met.add(other.patient_key)
        return nearest[:DEPTH]


def check(file: OnFile, keys: Keys, among: Keys | None) -> None:
    """That these cases, asked all at once, find what each finds alone, and the figures are those of its neighbours."""
    found = {each.facts.key: each for each in ask(file.catalog, file.snapshot, keys, among)}
    assert found.keys() == set(keys.tolist())
    for key, asked in found.items():
        nearest = file.nearest(key, among)
        others = [file.cases[other] for other, _ in nearest]
        assert asked.nearest.case_id == others[0].case_id
        assert len(nearest) == DEPTH
        similarities = np.array([similarity for _, similarity in nearest])
        assert asked.near == pytest.approx([similarities[:depth].mean() for depth in DEPTHS], abs=1e-12)
        rows = np.array([file.rows[other] for other, _ in nearest], dtype=np.float64)
        apart = [similarities[:depth].mean() - mean_among(rows[:depth]) for depth in DEPTHS[1:]]
        assert np.isnan(asked.apart[0]) and asked.apart[1:] == pytest.approx(apart, abs=1e-6)
        own = file.cases[key].attributes
        same = [KIND[other.attributes.modality] == KIND[own.modality] for other in others]
        assert asked.modality == [*same, True].index(True) + 1
        same = [other.attributes.body_part.lower() == own.body_part.lower() for other in others]
        assert asked.body_part == [*same, True].index(True) + 1


def mean_among(rows: np.ndarray) -> float:
    return float((rows @ rows.T)[~np.eye(len(rows), dtype=bool)].mean())
