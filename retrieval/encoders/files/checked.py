"""Values of JSON against the types of a dataclass's fields, with a sentence for what does not fit."""

from __future__ import annotations

import sys
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


def checked(hint: Any, value: Any, where: str) -> Any:
    """``value`` as ``hint`` asks (lists become tuples, whole numbers floats), or ValueError naming ``where``."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return _any_of(get_args(hint), value, where)
    if origin is tuple:
        return _tuple(get_args(hint), value, where)
    if hint is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:  # NaN is not
        return float(value)
    if type(value) is hint:
        return value
    raise ValueError(f"{where} must be {_WORDS.get(hint, 'an object')}, got {value!r}")


def _any_of(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    for hint in hints:
        try:
            return checked(hint, value, where)
        except ValueError:
            continue
    words = " or ".join(_WORDS.get(hint, "a list") for hint in hints)
    raise ValueError(f"{where} must be {words}, got {value!r}")


def _tuple(hints: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list, got {value!r}")
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(value) != len(hints):
        raise ValueError(f"{where} must have {len(hints)} values, got {len(value)}")
    return tuple(checked(hint, each, f"{where}[{n}]") for n, (hint, each) in enumerate(zip(hints, value, strict=True)))
