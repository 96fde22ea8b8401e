"""Pure: plain JSON values as the frozen dataclass whose names they have, each value held against its type.

What a service or a file says is checked before it is believed; this is what reads bundles back, and all that the Python
client is answered with. It needs the standard library alone.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from retrieval.errors import UsageError

T = TypeVar("T")
KINDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", types.NoneType: "nothing"}


def read(noun: type[T], told: object) -> T:
    """The dataclass. What it has no field for is passed over, and what is absent takes its default, when it has one.

    UsageError, which names the place and never the value, for anything that does not fit. Fields may be text, numbers,
    true or false, enumerations, Literal, other dataclasses, ``tuple[X, ...]`` and ``X | None``; a ``Mapping`` is
    taken as it is.
    """
    made: T = _noun(noun, told, "")
    return made


def _noun(noun: Any, told: object, place: str) -> Any:
    if not isinstance(told, dict):
        raise _unlike(place, "an object", told)
    values = {}
    for field in fields(noun):
        inner = f"{place}.{field.name}" if place else field.name
        if field.name in told:
            values[field.name] = _value(_types(noun)[field.name], told[field.name], inner)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise UsageError(f"Expected '{inner}', which is absent.")
    return noun(**values)


@cache
def _types(noun: type) -> dict[str, Any]:
    return get_type_hints(noun)


def _value(kind: Any, told: object, place: str) -> Any:
    origin = get_origin(kind)
    if origin in (types.UnionType, Union):
        (some,) = (each for each in get_args(kind) if each is not types.NoneType)
        return None if told is None else _value(some, told, place)
    if origin is tuple:
        if not isinstance(told, list):
            raise _unlike(place, "a list", told)
        return tuple(_value(get_args(kind)[0], each, f"{place}.{n}") for n, each in enumerate(told))
    if origin is Literal:
        if told not in get_args(kind):
            raise _unlike(place, f"one of {', '.join(map(str, get_args(kind)))}", told)
        return told
    if origin is Mapping:
        if not isinstance(told, dict):
            raise _unlike(place, "an object", told)
        return told
    if is_dataclass(kind):
        return _noun(kind, told, place)
    return _single(kind, told, place)


def _single(kind: type, told: object, place: str) -> Any:
    if issubclass(kind, Enum):
        try:
            return kind(told)
        except ValueError as error:
            raise _unlike(place, f"one of {', '.join(str(each.value) for each in kind)}", told) from error
    if kind is float and type(told) is int and abs(told) < 1 << 1023:  # JSON need not write the fraction of 1.0
        return float(told)
    if type(told) is not kind:
        raise _unlike(place, KINDS[kind], told)
    return told


def _unlike(place: str, expected: str, told: object) -> UsageError:
    got = KINDS.get(type(told), "a list" if isinstance(told, list) else "an object")
    got = f"another {got}" if isinstance(told, str) and expected.startswith("one of") else got
    where = f"'{place}'" if place else "the whole"
    return UsageError(f"Expected {where} to be {expected}, got {got}.")
