"""Classifying, estimating and evidence say the same on PostgreSQL as on SQLite, in all that is not a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from retrieval import Gallery
from retrieval.errors import PrecedentError, UsageError
from retrieval.evidence.bundle import gather
from retrieval.evidence.classify import classify
from retrieval.evidence.estimate import estimate
from retrieval.evidence.formats.markdown import markdown
from retrieval.evidence.formats.plain import evidence_json
from retrieval.evidence.plain import classification_json, estimate_json
from retrieval.filters import parse_text
from retrieval.types import Attributes, EmbeddedCase, Label
from tests.adapter_cases import open_small
from tests.databases import postgres_database
from tests.evidence_cases import angles, asked, drawn, on_file

COUNT = 360
REPORTS = (
    "FINDINGS: No effusion.\nÉpanchement: without. IMPRESSION: Normal; “quoted”, 100 % and a \\ backslash.",
    "",
    "No evidence of:\n- mass\n- nodule. Comparé à l'examen antérieur. 画像所見なし。",
)
SPELLED = {"calm": "Calm", "mixed": "mixed, really", "wild": "Wild é"}

Both = tuple[Gallery, Gallery]


def cases() -> list[EmbeddedCase]:
    """Three to a patient, some patients unknown; a label of one value, one of several, one in numbers; reports."""
    at, rng = angles(COUNT, seed=5), np.random.default_rng(6)
    labels = []
    for angle, kind in zip(at, drawn(at, seed=7), strict=True):
        said = [Label("kind", SPELLED[kind])]
        said += [Label("Findings", value) for value in ("östlich", "north", "North") if rng.random() < 0.4]
        size = 50 + 30 * np.cos(angle) + rng.normal(0, 4)
        labels.append([*said, Label("size mm", f"{size:.3f}", float(f"{size:.3f}"))])
    made = []
    for n, each in enumerate(on_file(at, labels, each=3)):
        about = Attributes(modality="MR" if n % 4 else "CT", body_part="HEAD", sex="FM"[n % 2], age=float(n % 97))
        patient = "" if n % 11 == 0 else each.case.patient_key
        case = replace(each.case, attributes=about, report=REPORTS[n % 3], patient_key=patient)
        made.append(replace(each, case=case))
    return made


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Both]:
    homes = tmp_path_factory.mktemp("both")
    with ExitStack() as opened:
        url = opened.enter_context(postgres_database(postgres_url))
        galleries = tuple(
            opened.enter_context(open_small(homes / name, database))
            for name, database in (("sqlite", ""), ("postgresql", url))
        )
        for gallery in galleries:
            for start in range(0, COUNT, 60):
                gallery.add(cases()[start : start + 60])
            gallery.delete(["case-00031", "case-00032"])
            gallery.catalog.update("case-00040", labels=[Label("kind", "Wild é")], report="Nothing new.")
        assert galleries[1].catalog.database.engine.dialect.name == "postgresql"
        yield galleries[0], galleries[1]


def without_times(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: without_times(value) for name, value in told.items() if name not in ("took_ms", "created")}
    return [without_times(value) for value in told] if isinstance(told, list) else told


def same(both: Both, ask: Callable[[Gallery], Any]) -> Any:
    """What both answer."""
    one, other = (without_times(ask(gallery)) for gallery in both)
    assert one == other
    return one


@pytest.mark.parametrize("where", ["", "modality=MR,sex=F", 'label.Findings="östlich"'])
@pytest.mark.parametrize(("label", "values"), [("kind", 3), ("Findings", 3)])
def test_classifications(both: Both, label: str, values: int, where: str) -> None:
    filters = parse_text(where) if where else None
    for angle in (0.3, 2.0, 4.4):
        query = asked(angle)
        told = same(both, lambda g, q=query: classification_json(classify(g, q, label=label, filters=filters)))
        assert len(told["values"]) == values and told["quality"] is not None
        assert all(value["case_ids"] or not value["count"] for value in told["values"])
        assert any(value["operating_points"] for value in told["values"])


def test_a_case_on_file_as_the_query(both: Both) -> None:
    told = same(both, lambda g: classification_json(classify(g, g.query_of("case-00100"), label="kind")))
    assert not {each["case_id"] for each in told["neighbours"]} & {f"case-{n:05d}" for n in range(99, 102)}


@pytest.mark.parametrize("where", ["", "modality=MR,age>=30"])
def test_estimates(both: Both, where: str) -> None:
    filters = parse_text(where) if where else None
    for angle in (0.3, 2.0, 4.4):
        query = asked(angle)
        told = same(both, lambda g, q=query: estimate_json(estimate(g, q, label="size mm", filters=filters)))
        assert told["low"] < told["number"] < told["high"] and told["quality"]["coverage"] > 0.7
        assert told["number"] == pytest.approx(50 + 30 * np.cos(angle), abs=12)


@pytest.mark.parametrize("max_tokens", [1500, 6000])
def test_bundles(both: Both, max_tokens: int) -> None:
    def ask(gallery: Gallery) -> Any:
        found = gather(gallery, gallery.query_of("case-00200"), k=12, max_tokens=max_tokens)
        return evidence_json(found), markdown(replace(found, provenance=replace(found.provenance, created="")))

    one, other = (ask(gallery) for gallery in both)
    assert without_times(one[0]) == without_times(other[0]) and one[1] == other[1]
    assert one[0]["cases"] and one[0]["votes"] and "“quoted”" in one[1]


def test_refusals(both: Both) -> None:
    def refused(ask: Callable[[Gallery], object]) -> Callable[[Gallery], str]:
        def told(gallery: Gallery) -> str:
            with pytest.raises(PrecedentError) as caught:
                ask(gallery)
            assert isinstance(caught.value, UsageError)
            return str(caught.value)

        return told

    assert "'kind', 'size mm', 'Findings'" in same(both, refused(lambda g: classify(g, asked(1.0), label="none")))
    same(both, refused(lambda g: classify(g, asked(1.0), label="size mm")))
    same(both, refused(lambda g: estimate(g, asked(1.0), label="kind")))
