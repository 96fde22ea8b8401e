"""Filters: the public face. ``parse`` and ``as_json``, ``parse_text`` for the command line, ``to_sql`` and ``holds``.

JSON: an object is a conjunction. A field is given a value, a list of values, null (unknown), or an object of bounds
(``gte``, ``gt``, ``lte``, ``lt``) or ``prefix``; ``and``/``or`` take a list of objects, ``not`` takes one::

    {"modality": "CT", "age": {"gte": 40, "lt": 60}, "label.finding": ["a", "b"],
     "not": {"body_part": {"prefix": "CH"}}}

Text: clauses joined by commas, ``=  !=  >=  >  <=  <  ^=`` (prefix), values joined by ``|``, nothing for unknown, and
double quotes around a value that holds one of these signs::

    modality=CT,age>=40,label.finding=a|b,body_part^=CH,source!="site, north"
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from retrieval.errors import UsageError
from retrieval.filters.plain import as_json
from retrieval.filters.sql import to_sql
from retrieval.filters.tree import (
    ALLOWED,
    LABEL,
    NUMBER_FIELDS,
    TEXT_FIELDS,
    And,
    Equals,
    Filter,
    Not,
    OneOf,
    Or,
    Prefix,
    Range,
    Value,
    holds,
)

__all__ = [
    "And",
    "Equals",
    "Filter",
    "Not",
    "OneOf",
    "Or",
    "Prefix",
    "Range",
    "as_json",
    "holds",
    "parse",
    "parse_text",
    "to_sql",
]

MOST_CLAUSES = 500
DEEPEST = 20
BOUNDS = ("gte", "gt", "lte", "lt")
SIGNS = {">=": "gte", ">": "gt", "<=": "lte", "<": "lt"}
CLAUSE = re.compile(r"\s*([^\s=!<>^,|\"]+)\s*(!=|>=|<=|\^=|=|>|<)\s*")
TEXT_VALUE = re.compile(r"\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^,|\"]*))\s*")


def parse(value: object) -> Filter:
    """A filter from plain JSON values; UsageError, a sentence that lists what is allowed, for anything else."""
    if _size(value) > MOST_CLAUSES:
        raise UsageError(f"The filter has more than {MOST_CLAUSES} values: ask for less.")
    return _object(value, 0)


def parse_text(text: str) -> Filter:
    """A filter from the command line's short form, or from JSON when it begins with "{"."""
    if text.lstrip().startswith("{"):
        try:
            return parse(json.loads(text))
        except (json.JSONDecodeError, RecursionError) as error:
            raise UsageError("The filter begins like JSON but isn't: check its quotes and brackets.") from error
    clauses: list[Filter] = []
    at = 0
    while at < len(text):
        clause, at = _clause(text, at)
        clauses.append(clause)
        if len(clauses) > MOST_CLAUSES:
            raise UsageError(f"The filter has more than {MOST_CLAUSES} clauses: ask for less.")
    if not clauses:
        raise UsageError("The filter is empty: expected something like modality=CT,age>=40.")
    return clauses[0] if len(clauses) == 1 else And(tuple(clauses))


def _size(value: object) -> int:
    """How many values there are in all, counted without recursion and no further than the limit."""
    waiting, size = [value], 0
    while waiting and size <= MOST_CLAUSES:
        part = waiting.pop()
        size += 1
        if isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return size


def _object(value: object, depth: int) -> Filter:
    if depth > DEEPEST:
        raise UsageError(f"The filter is nested more than {DEEPEST} deep: write it flatter.")
    if not isinstance(value, dict):
        raise UsageError(f"Expected a filter to be an object of fields ({ALLOWED}), got {_kind(value)}.")
    parts = tuple(_member(str(name), inner, depth) for name, inner in value.items())
    return parts[0] if len(parts) == 1 else And(parts)


def _member(name: str, value: object, depth: int) -> Filter:
    if name == "not":
        return Not(_object(value, depth + 1))
    if name in {"and", "or"}:
        if not isinstance(value, list) or not value:
            raise UsageError(f"Expected '{name}' to be a list of at least one object, got {_kind(value)}.")
        parts = tuple(_object(part, depth + 1) for part in value)
        return And(parts) if name == "and" else Or(parts)
    return _comparison(_field(name), value)


def _field(name: str) -> str:
    if name in TEXT_FIELDS or name in NUMBER_FIELDS or (name.startswith(LABEL) and len(name) > len(LABEL)):
        if _storable(name):
            return name
        raise UsageError("A label's name in a filter can't hold a NUL or half a character.")
    raise UsageError(f"Unknown filter field '{name[:50]!s}': expected {ALLOWED}.")


def _comparison(field: str, value: object) -> Filter:
    if value is None:
        return Equals(field, None)
    if isinstance(value, list):
        if not value:
            raise UsageError(f"The list of values for '{field}' is empty: give at least one.")
        return OneOf(field, tuple(_value(field, one) for one in value))
    if isinstance(value, dict):
        return _operators(field, value)
    return Equals(field, _value(field, value))


def _operators(field: str, operators: dict[Any, object]) -> Filter:
    unknown = sorted(str(name) for name in operators if name not in {*BOUNDS, "prefix"})
    if unknown or not operators or ("prefix" in operators and len(operators) > 1):
        got = ", ".join(unknown)[:50] or ("both" if operators else "none")
        raise UsageError(f"Expected '{field}' to have bounds ({', '.join(BOUNDS)}) or a prefix, got {got}.")
    if "prefix" in operators:
        text = operators["prefix"]
        if field in NUMBER_FIELDS or not isinstance(text, str):
            raise UsageError(f"A prefix is text and for a text field ({', '.join(TEXT_FIELDS)} or label.NAME).")
        return Prefix(field, _storable_text(field, text))
    if field in TEXT_FIELDS:
        raise UsageError(
            f"'{field}' is text and has no order: bounds are for {', '.join(NUMBER_FIELDS)} or label.NAME."
        )
    return Range(field, **{name: _number(field, operators[name]) for name in BOUNDS if name in operators})


def _value(field: str, value: object) -> Value:
    if isinstance(value, str) and field not in NUMBER_FIELDS:
        return _storable_text(field, value)
    if field in TEXT_FIELDS:
        raise UsageError(f"Expected '{field}' to be compared with text, got {_kind(value)}.")
    return _number(field, value)


def _number(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"Expected '{field}' to be compared with a number, got {_kind(value)}.")
    if not abs(value) < 1e15 or not math.isfinite(value):
        raise UsageError(f"Expected '{field}' to be compared with a number below 1e15, got one that isn't.")
    return float(value)


def _storable(text: str) -> bool:
    return "\x00" not in text and not any(0xD800 <= ord(character) < 0xE000 for character in text)


def _storable_text(field: str, text: str) -> str:
    if not _storable(text):
        raise UsageError(f"The text for '{field}' holds a NUL or half a character, which no case can have.")
    return text


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def _clause(text: str, at: int) -> tuple[Filter, int]:
    """The clause that begins at ``at`` and where the next one begins."""
    match = CLAUSE.match(text, at)
    if match is None:
        raise UsageError(
            f"The filter can't be read from '{text[at : at + 30]}': expected FIELD=VALUE (or != >= > <= < ^=), "
            f"several joined by commas, with FIELD one of {ALLOWED}."
        )
    field, sign, values = _field(match[1]), match[2], list[str]()
    at = match.end()
    while True:
        found = TEXT_VALUE.match(text, at)
        quoted, plain = (found[1], found[2]) if found else (None, "")
        values.append(re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain.strip())
        at = found.end() if found else at
        if at == len(text):
            return _signed(field, sign, values), at
        if text[at] not in ",|":
            raise UsageError(f"The filter can't be read from '{text[at : at + 30]}': expected a comma, | or the end.")
        at += 1
        if text[at - 1] == ",":
            return _signed(field, sign, values), at


def _signed(field: str, sign: str, texts: list[str]) -> Filter:
    if sign in SIGNS or sign == "^=":
        if len(texts) != 1:
            raise UsageError(f"'{field}{sign}' takes one value, got {len(texts)}.")
        operand = texts[0] if sign == "^=" else _read_number(field, texts[0])
        return _operators(field, {SIGNS.get(sign, "prefix"): operand})
    values = [_typed(field, text) for text in texts]
    if len(values) == 1:
        equal: Filter = Equals(field, None) if texts == [""] else _comparison(field, values[0])
    else:
        equal = _comparison(field, values)
    return Not(equal) if sign == "!=" else equal


def _typed(field: str, text: str) -> Value:
    return _read_number(field, text) if field in NUMBER_FIELDS and text else text


def _read_number(field: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"Expected a number after '{field}', got '{text[:30]}'.") from error
