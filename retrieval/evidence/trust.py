"""Where an answer by neighbours may be off, though it was fitted with care: sentences that go with it."""

from __future__ import annotations

from retrieval.gallery import Gallery
from retrieval.types import Query, SamePatient


def trust_notes(gallery: Gallery, query: Query, same_patient: SamePatient, voters: int, k: int) -> tuple[str, ...]:
    """What differs between this question and those that the fit was made of: the gallery's cases, of other patients."""
    notes = []
    if same_patient is not SamePatient.EXCLUDE:
        notes.append("Fitted on neighbours of other patients: with cases of the query's own, this may be off.")
    if query.text_weight > 0:
        notes.append("Fitted on cases as queries: for a sentence, this may be off.")
    if gallery.space().head is not None:
        notes.append(
            "Searches go through an adapter: where it was learned on cases of this gallery, these are nearer to their "
            "likes than a new case is, and this is surer than it should be."
        )
    if voters < k:
        notes.append(f"Fewer neighbours counted than the {k} asked for: {voters}, there are no more.")
    return tuple(notes)
