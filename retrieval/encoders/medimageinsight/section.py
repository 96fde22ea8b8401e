"""One table of a YAML configuration, read key by key: each value checked, each refusal naming its key in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrieval.errors import UsageError

_ABSENT: Any = object()


class Section:
    """A table and where it is from. Remembers which keys were read, so that one nobody understands can be told."""

    def __init__(self, table: Mapping[str, Any], path: str) -> None:
        self._table = table
        self._path = path
        self._read: set[str] = set()

    def section(self, key: str, *, absent: Mapping[str, Any] = _ABSENT) -> Section:
        value = self._value(key, absent)
        if not isinstance(value, Mapping):
            raise self._wrong(key, "a table", value)
        return Section(value, f"{self._path}{key}.")

    def whole(self, key: str, *, absent: int = _ABSENT, least: int = 1) -> int:
        value = self._value(key, absent)
        if not _is_whole(value, least):
            raise self._wrong(key, f"a whole number of at least {least}", value)
        return int(value)

    def wholes(self, key: str, count: int | None = None, *, least: int = 1) -> tuple[int, ...]:
        values = self._list(key, count, f"whole numbers of at least {least}")
        if not all(_is_whole(value, least) for value in values):
            raise self._wrong(key, f"whole numbers of at least {least}", list(values))
        return tuple(int(value) for value in values)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        values = self._list(key, count, "numbers")
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            raise self._wrong(key, "numbers", list(values))
        return tuple(float(value) for value in values)

    def flag(self, key: str, *, absent: bool = _ABSENT) -> bool:
        value = self._value(key, absent)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def flags(self, key: str, count: int) -> tuple[bool, ...]:
        values = self._list(key, count, "true or false")
        if not all(isinstance(value, bool) for value in values):
            raise self._wrong(key, "true or false", list(values))
        return tuple(bool(value) for value in values)

    def word(self, key: str, *, absent: str = _ABSENT) -> str:
        value = self._value(key, absent)
        if not isinstance(value, str):
            raise self._wrong(key, "a word", value)
        return value

    def must_be(self, key: str, expected: object, *, absent: object = _ABSENT) -> None:
        """For a key of which only one value can be honoured."""
        value = self._value(key, absent)
        if value != expected:
            raise self._wrong(key, f"{expected!r}, the only one known here", value)

    def each_divides(self, parts: str, of: Sequence[int], key: str, wholes: Sequence[int]) -> None:
        if any(whole % part for part, whole in zip(of, wholes, strict=True)):
            raise UsageError(f"{self._path}{parts} {list(of)} must divide {self._path}{key} {list(wholes)}.")

    def no_others(self, allowed: Sequence[str]) -> None:
        """UsageError for keys that were neither read nor known to be without effect on a vector."""
        if others := sorted(str(key) for key in self._table.keys() - self._read - set(allowed)):
            raise UsageError(
                f"The configuration has keys not understood here ({', '.join(self._path + key for key in others)}): "
                "they could change every vector, so the model is not opened."
            )

    def _value(self, key: str, absent: object) -> Any:
        self._read.add(key)
        if key in self._table:
            return self._table[key]
        if absent is _ABSENT:
            raise UsageError(f"The configuration lacks {self._path}{key}: fetch config.yaml again.")
        return absent

    def _list(self, key: str, count: int | None, what: str) -> Sequence[Any]:
        values = self._value(key, _ABSENT)
        if not isinstance(values, list) or not values or count not in (None, len(values)):
            raise self._wrong(key, f"a list of {count or 'some'} {what}", values)
        return values

    def _wrong(self, key: str, expected: str, got: object) -> UsageError:
        return UsageError(f"The configuration's {self._path}{key} must be {expected}; got {got!r:.80}.")


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
