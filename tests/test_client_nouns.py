"""What the client answers with is what the service's schemas say, field by field; and events are read as sent."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from api import evidence_schemas, judging_schemas, schemas, search_schemas
from api.client import asked, client
from api.client.events import events
from api.client.problems import ProblemTold
from api.client.transport import LONGEST_WAIT, stated, wait

PAIRS = [
    (client.SearchAnswer, search_schemas.SearchAnswer),
    (client.CaseOnFile, schemas.CaseBody),
    (client.ClassifyAnswer, judging_schemas.ClassifyAnswer),
    (client.EstimateAnswer, judging_schemas.EstimateAnswer),
    (client.Evidence, evidence_schemas.EvidenceAnswer),
    (client.Messages, evidence_schemas.MessagesAnswer),
    (client.Answer, evidence_schemas.GeneratedAnswer),
    (client.Added, schemas.CasesAdded),
]
TOLD_BY_THE_NOUN = {"url", "told"}  # properties of the engine's nouns, sent for those who do not have them
FORMS = [
    (asked.SearchQuery, search_schemas.SearchForm, {"preview"}),
    (asked.ClassifyQuery, judging_schemas.ClassifyForm, {"label"}),
    (asked.EstimateQuery, judging_schemas.EstimateForm, {"label"}),
    (asked.BundleQuery, evidence_schemas.EvidenceForm, {"format"}),
    (asked.BundleQuery, evidence_schemas.AnswerForm, {"question", "stream"}),
]


@pytest.mark.parametrize(("noun", "model"), PAIRS, ids=lambda each: each.__name__)
def test_every_field_of_the_wire_has_its_type(noun: type, model: type[BaseModel]) -> None:
    assert compared(noun, model) >= len(fields(noun))


def compared(noun: type, model: type[BaseModel]) -> int:
    """How many fields agree, those of inner nouns included."""
    hints, count = get_type_hints(noun), 0
    assert set(model.model_fields) - set(hints) <= TOLD_BY_THE_NOUN, noun
    assert all(isinstance(getattr(noun, name), property) for name in set(model.model_fields) - set(hints))
    for field in fields(noun):
        mine, theirs = inner(hints[field.name]), inner(model.model_fields[field.name].annotation)
        count += 1
        if is_dataclass(mine[-1]):
            assert mine[:-1] == theirs[:-1], field.name
            count += compared(mine[-1], theirs[-1])
        elif theirs[-1] == "object":
            assert mine == theirs, field.name
        elif isinstance(theirs[-1], type):
            assert mine == theirs or issubclass(mine[-1], theirs[-1]), field.name
    return count


def inner(kind: Any) -> tuple[Any, ...]:
    """What a type is made of, from outside to inside: several of a kind, perhaps nothing, the kind itself."""
    parts = [part for part in get_args(kind) if part not in (types.NoneType, Ellipsis)]
    if get_origin(kind) in (tuple, list):
        return ("several", *inner(parts[0]))
    if types.NoneType in get_args(kind):
        return ("perhaps", *inner(parts[0]))
    if get_origin(kind) in (Mapping, dict):
        return ("object",)
    return (str,) if parts and all(isinstance(part, str) for part in parts) else (get_origin(kind) or kind,)


def test_a_problem_is_that_of_the_wire() -> None:
    names = {field.name for field in fields(ProblemTold)}
    assert set(schemas.ProblemBody.model_fields) - names == {"title", "instance"}


@pytest.mark.parametrize(("keywords", "form", "own"), FORMS)
def test_every_field_of_a_form_can_be_asked_with(keywords: type, form: type[BaseModel], own: set[str]) -> None:
    """``own``: those that a method has as a parameter, or sets itself."""
    assert set(get_type_hints(keywords)) | own == set(form.model_fields)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))


@given(st.lists(st.tuples(TEXT.filter(lambda name: not name.startswith(" ")), TEXT), max_size=4), st.data())
def test_events_are_read_whatever_their_text_and_wherever_they_are_cut(
    sent: list[tuple[str, str]], data: st.DataObject
) -> None:
    body = b"".join(f"event: {name}\ndata: {text}\n\n".encode() for name, text in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    chunks = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert list(events(chunks)) == sent
    assert list(events([body, b"event: done\ndata: half"])) == sent


def test_events_by_hand() -> None:
    assert list(events([b": remark\r\ndata: a\r\ndata:b\r\nid: 3\r\n\r\nevent: x\n\n"])) == [("", "a\nb")]


def test_what_is_absent_is_left_to_the_service() -> None:
    sent = stated({"a": None, "b": "", "c": 0, "d": False, "e": {"x": None}, "f": 0.5, "g": "y"})
    assert sent == {"c": "0", "d": "false", "e": '{"x": null}', "f": "0.5", "g": "y"}


def test_how_long_it_waits() -> None:
    assert [wait("3"), wait(""), wait("soon"), wait("9999")] == [3.0, 1.0, 1.0, LONGEST_WAIT]
    assert wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
