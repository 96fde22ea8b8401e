"""Taking cases with vectors into a gallery: all of them checked first, then committed batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from retrieval.catalog import Catalog
from retrieval.catalog.store import check_fingerprint
from retrieval.privacy import Secret
from retrieval.settings import Settings
from retrieval.storage import make_directory, storing
from retrieval.vectors.source import CaseSource


@dataclass(frozen=True, slots=True)
class Taken:
    """How many cases were new, told anew, on file already as they are, and refused (on file with other content)."""

    added: int
    updated: int
    unchanged: int
    conflicts: int


@contextmanager
def taking(settings: Settings) -> Iterator[tuple[Catalog, Secret]]:
    """The catalog and key of a data directory to import into; both are made where there are none."""
    with storing("The data directory can't be made"):
        make_directory(settings.home)
    with Catalog.open(settings.url, create=True) as catalog:
        with storing("The key file secret.key can't be read or made"):
            secret = Secret.open(settings.home / "secret.key", create=catalog.count() == 0)
        yield catalog, secret


def check_source(source: CaseSource, catalog: Catalog | None) -> None:
    """All that can be wrong before anything is written. ``catalog``: what it would go into, None for a new one.

    FingerprintMismatch when the gallery is of another encoder, StoreError or UsageError for the source itself.
    """
    bound = catalog.binding() if catalog else None
    if bound is not None:
        check_fingerprint(bound, source.binding.fingerprint)
    source.check()


def import_vectors(
    source: CaseSource, catalog: Catalog, *, progress: Callable[[int, int], None] | None = None
) -> Taken:
    """Check all of a source, bind a gallery that has no encoder yet, and commit the cases, each batch durable.

    What was interrupted is simply run again: cases on file are unchanged. Raises as ``check_source``.
    """
    check_source(source, catalog)
    catalog.bind(source.binding)
    became: Counter[str] = Counter()
    for batch in source.batches():
        outcomes = catalog.commit(batch, fingerprint=source.binding.fingerprint)
        became.update(outcome.status for outcome in outcomes)
        if progress:
            progress(became.total(), source.count)
    return Taken(became["added"], became["updated"], became["unchanged"], became["conflict"])
