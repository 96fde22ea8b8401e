"""A filter as plain JSON values: what ``parse`` reads back as the same filter."""

from __future__ import annotations

from typing import Any

from retrieval.errors import UsageError
from retrieval.filters.tree import And, Equals, Filter, Not, OneOf, Or, Prefix, Range


def as_json(condition: Filter) -> dict[str, Any]:
    """The object, as a service takes it. UsageError for what JSON has no words for: an Or or OneOf of nothing, which no
    case passes, and a Range without bounds."""
    match condition:
        case And(()):
            return {}
        case Or(()) | OneOf(_, ()):
            raise UsageError("A filter that no case passes can't be sent: expected at least one part or value.")
        case Range(field, None, None, None, None):
            raise UsageError(f"A range of '{field}' without any bound can't be sent: expected at least one.")
        case And(parts):
            return {"and": [as_json(part) for part in parts]}
        case Or(parts):
            return {"or": [as_json(part) for part in parts]}
        case Not(part):
            return {"not": as_json(part)}
        case Equals(field, value):
            return {field: value}
        case OneOf(field, values):
            return {field: list(values)}
        case Prefix(field, text):
            return {field: {"prefix": text}}
        case Range(field):
            bounds = {name: getattr(condition, name) for name in ("gte", "gt", "lte", "lt")}
            return {field: {name: bound for name, bound in bounds.items() if bound is not None}}
