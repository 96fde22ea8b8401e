"""Labels that changed for a case whose pixels did not: updated in place, nothing decoded or embedded again."""

from __future__ import annotations

from indexer.drafts import Draft
from retrieval.catalog import Catalog


def renew(catalog: Catalog, draft: Draft) -> bool:
    """Bring the stored case's labels, report and attributes up to what is said of it now; True if any differed."""
    if not draft.described:
        return False
    stored, said = catalog.case(draft.case.case_id), draft.case
    attributes = None if stored.attributes == said.attributes else said.attributes
    labels = None if set(stored.labels) == set(said.labels) else said.labels
    report = None if stored.report == said.report or not said.report else said.report
    if attributes is None and labels is None and report is None:
        return False
    catalog.update(said.case_id, attributes=attributes, labels=labels, report=report)
    return True
