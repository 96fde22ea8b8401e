"""What an embedded case must be before it may be stored. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.types import EmbeddedCase

TOLERANCE = 1e-3  # of a unit row's norm
LONGEST_NAME = 200  # characters of a label's name or an identifier: what an index of PostgreSQL surely takes


def check(embedded: EmbeddedCase, dim: int) -> None:
    """UsageError naming the case when its id is empty or its vectors are not finite unit rows of ``dim`` numbers."""
    case, embedding = embedded.case, embedded.embedding
    if not case.case_id:
        raise UsageError("A case without an id can't be stored: expected 16 characters.")
    named = (case.case_id, case.study_uid, case.series_uid, case.patient_key, *(label.name for label in case.labels))
    if longest := next((name for name in named if len(name) > LONGEST_NAME), ""):
        raise UsageError(
            f"A label's name or an identifier of case {case.case_id[:16]} has {len(longest)} characters, expected at "
            f"most {LONGEST_NAME}: shorten the column's name."
        )
    if embedding.vector.ndim != 1:
        raise UsageError(f"The vector of case {case.case_id} has shape {embedding.vector.shape}, expected ({dim},).")
    if embedding.slices.ndim != 2 or not len(embedding.slices):
        raise UsageError(
            f"The slices of case {case.case_id} have shape {embedding.slices.shape}, expected (n, {dim}) with n >= 1."
        )
    _check_rows(f"The vector of case {case.case_id}", embedding.vector[None, :], dim)
    _check_rows(f"A slice of case {case.case_id}", embedding.slices, dim)
    if len(embedding.slice_frames) not in {0, len(embedding.slices)}:
        raise UsageError(
            f"Case {case.case_id} has {len(embedding.slices)} slices and {len(embedding.slice_frames)} slice frames, "
            "expected as many of one as of the other."
        )


def _check_rows(what: str, rows: npt.NDArray[np.floating], dim: int) -> None:
    if rows.shape[1] != dim:
        raise UsageError(f"{what} has {rows.shape[1]} numbers, expected {dim}: it was made by another encoder.")
    squares = np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
    if not np.isfinite(squares).all():
        raise UsageError(f"{what} holds NaN or infinity, expected finite numbers.")
    worst = float(np.abs(np.sqrt(squares) - 1.0).max())
    if worst > TOLERANCE:
        raise UsageError(f"{what} has a norm {worst:.3g} away from 1, expected a unit row (within {TOLERANCE}).")
