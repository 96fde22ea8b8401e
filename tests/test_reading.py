"""Plain JSON values are read back as what they were made of, and anything else is told by its place."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import UsageError
from retrieval.evidence.bundle import gather
from retrieval.evidence.cited import Evidence
from retrieval.evidence.formats.plain import evidence_json, evidence_of
from retrieval.reading import read
from tests.evidence_gallery import PLAIN, evidence_gallery

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def any_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value that JSON can carry: of a noun, every field of its own."""
    inner = get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return st.builds(kind, **{field.name: any_of(hints[field.name]) for field in fields(kind)})
    if get_origin(kind) is tuple:
        return st.lists(any_of(inner[0]), max_size=2).map(tuple)
    if inner:
        return st.one_of(map(any_of, inner))
    return FINITE if kind is float else st.from_type(kind)


@settings(max_examples=60, deadline=None)
@given(any_of(Evidence))
def test_any_bundle_is_read_back_as_itself(evidence: Evidence) -> None:
    assert evidence_of(json.loads(json.dumps(evidence_json(evidence)))) == evidence


def test_a_gathered_bundle_is_read_back_as_itself(tmp_path: Path) -> None:
    with evidence_gallery(tmp_path, [PLAIN] * 6) as gallery:
        evidence = gather(gallery, gallery.query_of(f"{1:016d}"), k=4, max_tokens=900)
    assert evidence.cases and evidence.votes and evidence.cases[0].labels and evidence.cases[0].images
    sent = json.loads(json.dumps(evidence_json(evidence)))
    assert evidence_of(sent) == evidence
    assert evidence_of({**sent, "of_a_later_version": 1}) == evidence
    del sent["notes"]  # the one field with a default
    assert evidence_of(sent) == replace(evidence, notes=())


class Side(StrEnum):
    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True, slots=True)
class Inner:
    number: float


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    inner: tuple[Inner, ...] = ()
    side: Side | None = None
    way: Literal["a", "b"] = "a"
    count: int = 0


def test_each_kind_of_field() -> None:
    told = {"name": "x", "inner": [{"number": 1}, {"number": 2.5}], "side": "left", "way": "b", "count": 3}
    assert read(Outer, told) == Outer("x", (Inner(1.0), Inner(2.5)), Side.LEFT, "b", 3)
    assert read(Outer, {"name": "x"}) == Outer("x")


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (None, "Expected the whole to be an object, got nothing."),
        ([1], "Expected the whole to be an object, got a list."),
        ({}, "Expected 'name', which is absent."),
        ({"name": 3}, "Expected 'name' to be text, got a whole number."),
        ({"name": "x", "inner": {}}, "Expected 'inner' to be a list, got an object."),
        ({"name": "x", "inner": [{"number": 1}, {"number": "secret"}]}, "'inner.1.number' to be a number, got text."),
        ({"name": "x", "inner": [{"number": True}]}, "'inner.0.number' to be a number, got true or false."),
        ({"name": "x", "inner": [{"number": 10**400}]}, "'inner.0.number' to be a number, got a whole number."),
        ({"name": "x", "side": "top"}, "Expected 'side' to be one of left, right, got another text."),
        ({"name": "x", "way": "c"}, "Expected 'way' to be one of a, b, got another text."),
        ({"name": "x", "way": []}, "Expected 'way' to be one of a, b, got a list."),
        ({"name": "x", "count": 1.5}, "Expected 'count' to be a whole number, got a number."),
        ({"name": "x", "count": None}, "Expected 'count' to be a whole number, got nothing."),
    ],
)
def test_what_does_not_fit_is_told_by_its_place_and_not_by_its_value(told: object, sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(Outer, told)
    assert sentence in str(raised.value) and "secret" not in str(raised.value)
