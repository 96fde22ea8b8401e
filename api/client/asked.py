"""What the service can be asked with: the keywords of the client's methods, under the names of the HTTP forms.

A query is ``files`` (one image, a zip, or all files of a series), ``case_id`` of a case on file, ``text``, or ``text``
beside one of the other two. What is absent or None is left to the service; docs/http.md has its defaults and bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

Filters = Mapping[str, Any]  # as {"modality": "CT", "age": {"gte": 40}}
Labels = Mapping[str, str | float | Sequence[str | float]]
SamePatient = Literal["exclude", "include", "only"]


class Query(TypedDict, total=False):
    """A query beside ``files``, and among which cases. ``text_weight``: share of the text beside an image, 0 to 1."""

    case_id: str
    text: str
    text_weight: float | None
    fusion: Literal["sum", "rrf"] | None
    k: int | None
    filters: Filters | None


class SearchQuery(Query, total=False):
    """``rerank``: by the best matching slices. ``group``: keep only the best hit of each."""

    rerank: bool
    same_patient: SamePatient | None
    group: Literal["patient", "study", "none"] | None


class BundleQuery(Query, total=False):
    """How much a bundle may hold. ``max_tokens``: of its markdown. ``max_images``: the query's own among them."""

    max_tokens: int | None
    max_images: int | None


class ClassifyQuery(Query, total=False):
    """``sensitivity`` that rule-out must keep; ``specificity`` to rule in at, or at Youden's point. Both 0 to 1."""

    same_patient: SamePatient | None
    sensitivity: float | None
    specificity: float | None


class EstimateQuery(Query, total=False):
    """``level``: share of new cases that the interval is to hold, 0 to 1."""

    same_patient: SamePatient | None
    level: float | None
