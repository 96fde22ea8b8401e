"""Which cases may answer a query: those a filter lets through, less itself and, unless asked for, its own patient."""

from __future__ import annotations

import numpy as np

from retrieval.catalog import Catalog
from retrieval.errors import UsageError
from retrieval.filters import Filter
from retrieval.heads import Heads
from retrieval.selections import Selections
from retrieval.types import Keys, Query, SamePatient


def scope_of(
    catalog: Catalog,
    query: Query,
    filters: Filter | None,
    same_patient: SamePatient,
    heads: Heads,
    selections: Selections,
) -> tuple[Keys | None, Keys]:
    """(allowed keys or None for all, excluded keys), both sorted. UsageError for ``only`` without a known patient.

    ``heads``: of the state that ``catalog`` is read in.
    """
    allowed = None if filters is None else selections.of(filters, heads, catalog.select)
    itself = np.array([query.key] if query.key else [], dtype=np.int64)
    if same_patient is SamePatient.INCLUDE:
        return allowed, itself
    own = np.union1d(catalog.keys_of_patient(query.patient_key), catalog.keys_of_study(query.study_uid))
    if same_patient is SamePatient.EXCLUDE:
        return allowed, np.union1d(itself, own)
    if not query.patient_key and not len(own):
        raise UsageError("same_patient=only needs a query whose patient is known: this one carries no patient id.")
    return (own if allowed is None else np.intersect1d(allowed, own)), itself
