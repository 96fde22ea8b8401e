"""What was said of a case that is on file already: kept where nothing new is said, renewed where something is.

A header is read on every run, but a labels file is given once. So what is on file comes before the header, and what is
said now (a row of the labels file, a source's name) before both: silence undoes nothing.
"""

from __future__ import annotations

from dataclasses import fields, replace

from indexer.drafts import Draft
from indexer.originals import unseal
from retrieval.catalog import Catalog
from retrieval.errors import NotFoundError
from retrieval.privacy import Secret
from retrieval.types import Attributes, Label


def with_stored(catalog: Catalog, draft: Draft) -> Draft:
    """The draft of a case on file with what was said of it before, if it is that case still or one that grew.

    Other pixels that take a case's place inherit nothing.
    """
    said, facts = draft.case, draft.facts
    try:
        before = {file.sha256 for file in catalog.files(said.case_id)}
        stored = catalog.case(said.case_id)
    except NotFoundError:  # deleted by another process in this very moment
        return draft
    if not before <= {file.sha256 for file in draft.files}:
        return draft
    attributes = _over(said.attributes, stored.attributes)
    if said.attributes.source:
        attributes = replace(attributes, source=said.attributes.source)
    case = replace(
        said,
        attributes=facts.over(attributes) if facts else attributes,
        labels=said.labels if facts and facts.labels else _with_new_names(stored.labels, said.labels),
        report=said.report or stored.report,
        patient_key=said.patient_key if facts and facts.patient_id else stored.patient_key or said.patient_key,
    )
    return replace(draft, case=case)


def renew(catalog: Catalog, draft: Draft) -> bool:
    """Bring a stored case, its pixels being the same, up to what is said of it now; True if anything differed.

    Updated in place: nothing is decoded or embedded again.
    """
    try:
        stored = catalog.case(draft.case.case_id)
    except NotFoundError:
        return False
    said = with_stored(catalog, draft).case
    attributes = None if stored.attributes == said.attributes else said.attributes
    labels = None if set(stored.labels) == set(said.labels) else said.labels
    report = None if stored.report == said.report else said.report
    patient_key = None if stored.patient_key == said.patient_key else said.patient_key
    if attributes is None and labels is None and report is None and patient_key is None:
        return False
    catalog.update(said.case_id, attributes=attributes, labels=labels, report=report, patient_key=patient_key)
    return True


def relocate(catalog: Catalog, draft: Draft, secret: Secret) -> None:
    """Follow files that have moved: the same bytes were found, and where they were before nothing is any more."""
    case_id = draft.case.case_id
    stored = catalog.files(case_id)
    if not stored:
        return
    before, now = unseal(stored[0].sealed_path, secret)[0].path, draft.scans[0].source.path.absolute()
    if before != now and not before.exists():
        catalog.move_files(case_id, draft.files)


def _over(header: Attributes, stored: Attributes) -> Attributes:
    """The header's attributes with every value on file in its place."""
    unknown = Attributes()
    known = {
        f.name: getattr(stored, f.name)
        for f in fields(Attributes)
        if getattr(stored, f.name) != getattr(unknown, f.name)
    }
    return replace(header, **known)


def _with_new_names(stored: tuple[Label, ...], declared: tuple[Label, ...]) -> tuple[Label, ...]:
    names = {label.name for label in stored}
    return (*stored, *(label for label in declared if label.name not in names))
