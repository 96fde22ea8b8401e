"""A filter means the same in SQL as in Python, on both databases; what can't be read is told in a sentence."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval.catalog import Catalog
from retrieval.errors import UsageError
from retrieval.filters import And, Equals, Filter, Not, OneOf, Or, Prefix, Range, as_json, holds, parse, parse_text
from retrieval.filters.tree import NUMBER_FIELDS, TEXT_FIELDS
from retrieval.types import Attributes, Case, CaseKind, Label
from tests.databases import FINGERPRINT, embedded

# Few values, so that filters meet cases; among them what folding, collations, padding and LIKE could get wrong.
TEXTS = ["", "CT", "ct", "Ct ", "MR", "CHEST", "Chêst", "CHÊST", "İ", "ß", "SS", "%", "_", "a'b", "a" * 120, "A" * 121]
NUMBERS = [None, 0.0, -0.0, 39.5, 40.0, 41.0, 2020.0, 1e300, float("nan"), float("inf")]
YEARS = [None, 0, 40, 2019, 2020]
BOUNDS = [0.0, 39.5, 40.0, 40.5, 2019.5, 2020.0, -1.0]
PREFIXES = [*TEXTS, "c", "chê", "CHÊ", "i", "a" * 119]
NAMES = ["finding", "Finding", "kl"]
FIELDS = [*TEXT_FIELDS, *NUMBER_FIELDS, "label.finding", "label.kl", "label.absent"]


def leaves() -> list[Filter]:
    """Every comparison of every field with every value."""
    found: list[Filter] = []
    for field in FIELDS:
        found += [Equals(field, value) for value in (None, *TEXTS, *BOUNDS, "image", "VOLUME")]
        found += [Prefix(field, text) for text in PREFIXES]
        found += [OneOf(field, values) for values in ((), ("ct", "MR"), ("ct", 40.0), (39.5, 40.0), tuple(TEXTS))]
        for bound in BOUNDS:
            found += [Range(field, gte=bound), Range(field, gt=bound), Range(field, lte=bound), Range(field, lt=bound)]
        found += [Range(field), Range(field, gte=39.5, lt=41.0), Range(field, gt=41.0, lt=39.5)]
    return found


def stored(catalog: Catalog, gallery: Iterable[tuple[Attributes, Iterable[Label], CaseKind]]) -> list[Case]:
    catalog.commit(
        [
            embedded(f"case-{n}", attributes=attributes, labels=tuple(labels), kind=kind)
            for n, (attributes, labels, kind) in enumerate(gallery)
        ],
        fingerprint=FINGERPRINT,
    )
    return catalog.list_cases()


def test_every_comparison_is_the_same_in_sql(catalog: Catalog) -> None:
    kinds = itertools.cycle(CaseKind)
    gallery = [(Attributes(*[text] * 5, manufacturer=text, source=text), [], next(kinds)) for text in TEXTS]
    gallery += [(Attributes(age=number), [Label("kl", "grade", number)], next(kinds)) for number in NUMBERS]
    gallery += [
        (Attributes(study_year=year), [Label("finding", "x"), Label("finding", "y")], next(kinds)) for year in YEARS
    ]
    gallery += [(Attributes(), [Label(name, text)], next(kinds)) for name in NAMES for text in TEXTS]
    cases = stored(catalog, gallery)
    assert len(cases) == len(gallery)
    for leaf in leaves():
        for condition in (leaf, Not(leaf)):
            assert catalog.select(condition).tolist() == [case.key for case in cases if holds(condition, case)], (
                condition
            )


TEXT = st.sampled_from(TEXTS)
ATTRIBUTES = st.builds(
    Attributes, modality=TEXT, sex=TEXT, age=st.sampled_from(NUMBERS), study_year=st.sampled_from(YEARS)
)
LABELS = st.lists(st.builds(Label, st.sampled_from(NAMES), TEXT, st.sampled_from(NUMBERS)), max_size=4)
GALLERIES = st.lists(st.tuples(ATTRIBUTES, LABELS, st.sampled_from(CaseKind)), max_size=6)


def _joined(parts: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(parts, max_size=3).map(tuple)
    return st.one_of(st.builds(And, several), st.builds(Or, several), st.builds(Not, parts))


FILTERS = st.recursive(st.sampled_from(leaves()), _joined, max_leaves=6)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gallery=GALLERIES, conditions=st.lists(FILTERS, min_size=4, max_size=12))
def test_sql_and_python_select_the_same_cases(catalog: Catalog, gallery: list, conditions: list[Filter]) -> None:
    catalog.delete([case.case_id for case in catalog.list_cases()])
    cases = stored(catalog, gallery)
    assert len(cases) == len(gallery)
    for condition in conditions:
        assert catalog.select(condition).tolist() == [case.key for case in cases if holds(condition, case)]
        assert catalog.list_cases(condition) == [case for case in cases if holds(condition, case)]


def test_what_a_filter_means(catalog: Catalog) -> None:
    """By hand, so that the two can't agree on something wrong."""
    catalog.commit(
        [
            embedded("a", attributes=Attributes(modality="CT", age=59.5), labels=(Label("kl", "3", 3.0),)),
            embedded("b", attributes=Attributes(modality="ct", age=60.0), labels=(Label("f", "x"), Label("f", "y"))),
            embedded("c", attributes=Attributes(body_part="CHEST", study_year=2020)),
        ],
        fingerprint=FINGERPRINT,
    )

    def chosen(condition: Filter) -> str:
        return "".join(case.case_id for case in catalog.list_cases(condition))

    assert chosen(Equals("modality", "Ct")) == "ab"
    assert chosen(Not(Equals("modality", "CT"))) == "c"
    assert chosen(Equals("modality", None)) == "c"
    assert chosen(Not(Range("age", gte=0))) == "c"
    assert chosen(Range("age", gte=59.6)) == "b"
    assert chosen(Range("study_year", gt=2019.5, lt=2020.5)) == "c"
    assert chosen(Equals("label.f", "Y")) == "b"
    assert chosen(Not(Equals("label.f", "x"))) == "ac"
    assert chosen(And((Equals("label.f", "x"), Equals("label.f", "y")))) == "b"
    assert chosen(Range("label.kl", gte=3, lte=3)) == "a"
    assert chosen(Equals("label.kl", 3.0)) == "a"
    assert chosen(Equals("label.kl", None)) == "bc"
    assert chosen(Prefix("body_part", "ch")) == "c"
    assert chosen(Equals("kind", "IMAGE")) == "abc"
    assert chosen(And(())) == "abc"
    assert chosen(Or(())) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, And(())),
        ({"modality": "CT"}, Equals("modality", "CT")),
        ({"modality": None}, Equals("modality", None)),
        ({"age": {"gte": 40, "lt": 60}}, Range("age", gte=40.0, lt=60.0)),
        ({"label.finding": ["a", 2]}, OneOf("label.finding", ("a", 2.0))),
        ({"body_part": {"prefix": "CH"}}, Prefix("body_part", "CH")),
        ({"not": {"sex": "F"}, "view": "PA"}, And((Not(Equals("sex", "F")), Equals("view", "PA")))),
        ({"or": [{"sex": "F"}, {"and": [{"age": 40}]}]}, Or((Equals("sex", "F"), And((Equals("age", 40.0),))))),
        ({"label.not": "x"}, Equals("label.not", "x")),
    ],
)
def test_json_shapes(value: object, expected: Filter) -> None:
    assert parse(value) == expected
    assert parse_text(json.dumps(value)) == expected


def _sayable(leaf: Filter) -> bool:
    """Whether JSON has words for it: a comparison of the right kind with at least one value."""
    with contextlib.suppress(UsageError):
        return parse(as_json(leaf)) == leaf
    return False


def _nested_in(parts: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(parts, min_size=1, max_size=3).map(tuple)
    return st.one_of(st.builds(And, several), st.builds(Or, several), st.builds(Not, parts), st.just(And(())))


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.sampled_from([leaf for leaf in leaves() if _sayable(leaf)]), _nested_in, max_leaves=8))
def test_a_filter_as_json_is_read_back_as_itself(condition: Filter) -> None:
    assert parse(json.loads(json.dumps(as_json(condition)))) == condition


def test_every_leaf_can_be_sent_but_for_what_says_nothing_or_compares_other_kinds() -> None:
    for leaf in leaves():
        match leaf:
            case Equals(field, None):
                sayable = True
            case Equals(field, value):
                sayable = isinstance(value, float) or field not in NUMBER_FIELDS
                sayable &= isinstance(value, str) or field not in TEXT_FIELDS
            case Prefix(field):
                sayable = field not in NUMBER_FIELDS
            case OneOf(field, values):
                sayable = bool(values) and all(_sayable(Equals(field, value)) for value in values)
            case Range(field):
                sayable = field not in TEXT_FIELDS and leaf != Range(field)
            case _:
                raise AssertionError(leaf)
        assert _sayable(leaf) == sayable, leaf


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        (Or(()), "no case passes"),
        (Not(And((OneOf("modality", ()),))), "no case passes"),
        (Range("age"), "range of 'age' without any bound"),
    ],
)
def test_what_json_has_no_words_for_is_told(condition: Filter, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        as_json(condition)


def _nested(depth: int) -> object:
    value: object = {"sex": "F"}
    for _ in range(depth):
        value = {"not": value}
    return value


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([], "Expected a filter to be an object of fields .*age.*label.NAME.*, got a list"),
        ("CT", "got text"),
        ({"patient_key": "x"}, "Unknown filter field 'patient_key': expected age, body_part, .* or label.NAME"),
        ({"label.": "x"}, "Unknown filter field 'label.'"),
        ({"__class__": "x"}, "Unknown filter field"),
        ({"modality": 3}, "Expected 'modality' to be compared with text, got a number"),
        ({"age": "old"}, "Expected 'age' to be compared with a number, got text"),
        ({"age": True}, "got true or false"),
        ({"age": float("nan")}, "below 1e15"),
        ({"study_year": 10**400}, "below 1e15"),
        ({"age": {"near": 40}}, r"bounds \(gte, gt, lte, lt\) or a prefix, got near"),
        ({"age": {}}, "got none"),
        ({"modality": {"prefix": "C", "gte": 1}}, "got both"),
        ({"modality": {"gte": 1}}, "'modality' is text and has no order"),
        ({"age": {"prefix": "4"}}, "A prefix is text and for a text field"),
        ({"age": {"gte": None}}, "compared with a number, got null"),
        ({"modality": []}, "list of values for 'modality' is empty"),
        ({"modality": [["CT"]]}, "compared with text, got a list"),
        ({"or": []}, "Expected 'or' to be a list of at least one object"),
        ({"and": {"sex": "F"}}, "Expected 'and' to be a list"),
        ({"not": "x"}, "Expected a filter to be an object"),
        ({"label.x": "\ud800"}, "half a character"),
        ({"label.\x00": "x"}, "NUL"),
        ({"label.x": ["v"] * 600}, "more than 500 values"),
        (_nested(21), "nested more than 20 deep"),
        (_nested(5000), "more than 500 values"),
    ],
)
def test_what_can_not_be_read_is_told(value: object, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("modality=CT", Equals("modality", "CT")),
        (" modality = CT , age >= 40 ", And((Equals("modality", "CT"), Range("age", gte=40.0)))),
        ("age<40.5", Range("age", lt=40.5)),
        ("label.f=a|b", OneOf("label.f", ("a", "b"))),
        ("label.f!=a|b", Not(OneOf("label.f", ("a", "b")))),
        ("body_part^=CH", Prefix("body_part", "CH")),
        ("body_part=", Equals("body_part", None)),
        ("age!=", Not(Equals("age", None))),
        ('source="site, \\"north\\""', Equals("source", 'site, "north"')),
        ("label.grade=3", Equals("label.grade", "3")),
        ("label.grade>2", Range("label.grade", gt=2.0)),
        ("study_year=2019|2020", OneOf("study_year", (2019.0, 2020.0))),
    ],
)
def test_the_short_form(text: str, expected: Filter) -> None:
    assert parse_text(text) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The filter is empty"),
        ("modality", "can't be read from 'modality': expected FIELD=VALUE"),
        ("name=x", "Unknown filter field 'name'"),
        ("age>=old", "Expected a number after 'age', got 'old'"),
        ("modality>=CT", "Expected a number after 'modality'"),
        ("age>=1|2", "takes one value, got 2"),
        ('source="a"b', "expected a comma, | or the end"),
        ("{not json", "begins like JSON but isn't"),
    ],
)
def test_the_short_form_tells_what_it_can_not_read(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence.replace("|", r"\|")):
        parse_text(text)


@pytest.mark.parametrize("read", [parse_text, lambda text: parse({"label.x": text, text: 1})])
@given(text=st.text())
def test_no_text_does_anything_but_parse_or_be_refused(read: Callable[[str], Filter], text: str) -> None:
    with contextlib.suppress(UsageError):
        read(text)
