"""A filter as a condition on the table ``cases``; never NULL, so that NOT means what ``holds`` says it means."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Double, and_, false, func, literal, not_, or_, select, true

from retrieval.filters.tree import (
    LABEL,
    NUMBER_FIELDS,
    And,
    Equals,
    Filter,
    Not,
    OneOf,
    Or,
    Prefix,
    Range,
    Value,
    fold,
)
from retrieval.schema import INDEXED_CHARACTERS, cases, folded, labels


def to_sql(condition: Filter) -> ColumnElement[bool]:
    """The condition for a statement that reads ``cases``."""
    match condition:
        case And(parts):
            return and_(true(), *map(to_sql, parts))
        case Or(parts):
            return or_(false(), *map(to_sql, parts))
        case Not(part):
            return not_(to_sql(part))
        case Equals(field, None):
            return _unknown(field)
        case Equals(field, value) if value is not None:
            return _leaf(field, _one_of(field, (value,)))
        case OneOf(field, values):
            return _leaf(field, _one_of(field, values))
        case Prefix(field, text):
            return _leaf(field, _begins(field, text))
        case Range(field):
            return _leaf(field, _within(field, condition))
    raise TypeError(f"Expected a filter, got {type(condition).__name__}.")


def _leaf(field: str, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """A condition on one label becomes one on cases: a subquery, which the index on names and values answers."""
    if not field.startswith(LABEL):
        return condition
    return cases.c.key.in_(select(labels.c.key).where(labels.c.name == field.removeprefix(LABEL), condition))


def _text(field: str) -> ColumnElement[str]:
    return labels.c.value if field.startswith(LABEL) else cases.c[field]


def _number(field: str) -> ColumnElement[float]:
    return labels.c.number if field.startswith(LABEL) else cases.c[field]


def _is_known_text(field: str) -> ColumnElement[bool]:
    if field.startswith(LABEL):
        return true()
    return false() if field in NUMBER_FIELDS else cases.c[field] != ""


def _is_known_number(field: str) -> ColumnElement[bool]:
    if field.startswith(LABEL) or field in NUMBER_FIELDS:
        return _number(field).is_not(None)
    return false()


def _unknown(field: str) -> ColumnElement[bool]:
    if field.startswith(LABEL):
        return not_(_leaf(field, true()))
    return cases.c[field].is_(None) if field in NUMBER_FIELDS else cases.c[field] == ""


def _one_of(field: str, values: tuple[Value, ...]) -> ColumnElement[bool]:
    texts = [fold(value) for value in values if isinstance(value, str)]
    numbers = [float(value) for value in values if not isinstance(value, str)]
    conditions: list[ColumnElement[bool]] = []
    if texts and field not in NUMBER_FIELDS:
        conditions.append(and_(_is_known_text(field), _is_text(field, texts)))
    if numbers and (field in NUMBER_FIELDS or field.startswith(LABEL)):
        among = or_(*(_number(field) == _double(number) for number in numbers))
        conditions.append(and_(_is_known_number(field), among))
    return or_(false(), *conditions)


def _is_text(field: str, texts: list[str]) -> ColumnElement[bool]:
    indexed = folded(_text(field)).in_([text[:INDEXED_CHARACTERS] for text in texts])
    if all(len(text) < INDEXED_CHARACTERS for text in texts):
        return indexed  # a value whose first characters are fewer than that is those characters
    return and_(indexed, func.lower(_text(field)).in_(texts))


def _begins(field: str, text: str) -> ColumnElement[bool]:
    if field in NUMBER_FIELDS:
        return false()
    prefix = fold(text)
    return and_(_is_known_text(field), func.lower(func.substr(_text(field), 1, len(prefix))) == prefix)


def _within(field: str, bounds: Range) -> ColumnElement[bool]:
    if field not in NUMBER_FIELDS and not field.startswith(LABEL):
        return false()
    number = _number(field)
    conditions = [_is_known_number(field)]
    if bounds.gte is not None:
        conditions.append(number >= _double(bounds.gte))
    if bounds.gt is not None:
        conditions.append(number > _double(bounds.gt))
    if bounds.lte is not None:
        conditions.append(number <= _double(bounds.lte))
    if bounds.lt is not None:
        conditions.append(number < _double(bounds.lt))
    return and_(*conditions)


def _double(number: float) -> ColumnElement[float]:
    return literal(float(number), Double)  # or 59.5 would be rounded to the type of a whole-numbered column
