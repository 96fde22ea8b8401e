"""A filter as a tree of frozen dataclasses, and what it means (``holds``).

There are two truth values: a comparison with something unknown is false, and its negation is true. Text is compared
without regard to the case of A-Z, whole values to whole values. A case may have several values of a label; a comparison
holds when it holds for one of them. Label names are matched as written.

``retrieval.filters.sql`` says the same in SQL; a property test holds the two together on both databases.
"""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.storable import clean
from retrieval.types import Case

TEXT_FIELDS = ("modality", "body_part", "view", "laterality", "sex", "manufacturer", "source", "kind")
NUMBER_FIELDS = ("age", "study_year")
LABEL = "label."
ALLOWED = f"{', '.join(sorted(TEXT_FIELDS + NUMBER_FIELDS))} or label.NAME"

Value = str | float


@dataclass(frozen=True, slots=True)
class Equals:
    """The field has this value; ``None`` asks for cases of which it is unknown."""

    field: str
    value: Value | None


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field has one of these values."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """A number within bounds; None is no bound. Labels are compared by their numeric value."""

    field: str
    gte: float | None = None
    gt: float | None = None
    lte: float | None = None
    lt: float | None = None


@dataclass(frozen=True, slots=True)
class Prefix:
    """The text begins so."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class And:
    """All of them; none at all is every case."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of them; none at all is no case."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Every other case, those of which the field is unknown included."""

    part: Filter


Filter = Equals | OneOf | Range | Prefix | And | Or | Not


def fold(text: str) -> str:
    """A-Z to a-z and nothing else, as the databases' ``lower`` does here."""
    return clean(text).encode().lower().decode()


def holds(condition: Filter, case: Case) -> bool:
    """Whether a case as the catalog returns it (not as it was offered) satisfies the filter."""
    match condition:
        case And(parts):
            return all(holds(part, case) for part in parts)
        case Or(parts):
            return any(holds(part, case) for part in parts)
        case Not(part):
            return not holds(part, case)
        case Equals(field, None):
            return not _texts(case, field) and not _numbers(case, field)
        case Equals(field, value):
            return _has(case, field, value)
        case OneOf(field, values):
            return any(_has(case, field, value) for value in values)
        case Range(field):
            return any(_within(condition, number) for number in _numbers(case, field))
        case Prefix(field, text):
            return any(fold(known).startswith(fold(text)) for known in _texts(case, field))


def _has(case: Case, field: str, value: Value | None) -> bool:
    if isinstance(value, str):
        return any(fold(known) == fold(value) for known in _texts(case, field))
    return value in _numbers(case, field)


def _within(bounds: Range, number: float) -> bool:
    return (
        (bounds.gte is None or number >= bounds.gte)
        and (bounds.gt is None or number > bounds.gt)
        and (bounds.lte is None or number <= bounds.lte)
        and (bounds.lt is None or number < bounds.lt)
    )


def _texts(case: Case, field: str) -> list[str]:
    """The known texts of a field: an empty attribute is unknown, an empty label is a value."""
    if field.startswith(LABEL):
        return [label.value for label in case.labels if LABEL + label.name == field]
    if field in NUMBER_FIELDS:
        return []
    text = case.kind.value if field == "kind" else str(getattr(case.attributes, field))
    return [text] if text else []


def _numbers(case: Case, field: str) -> list[float]:
    if field.startswith(LABEL):
        return [label.number for label in case.labels if LABEL + label.name == field and label.number is not None]
    if field in TEXT_FIELDS:
        return []
    number = getattr(case.attributes, field)
    return [] if number is None else [float(number)]
