"""Which files of ``HOME/kept`` the cases of a whole catalog refer to: for backups and for scrubbing."""

from __future__ import annotations

from sqlalchemy import select

from indexer.originals import KEPT, unseal
from retrieval.backups import KeptFiles
from retrieval.catalog import Catalog
from retrieval.privacy import Secret
from retrieval.schema import files

ROWS = 4096


def kept_files(secret: Secret) -> KeptFiles:
    """The folder of kept uploads, as a backup wants to know it."""
    return KeptFiles(KEPT, lambda catalog: kept_names(catalog, secret))


def kept_names(catalog: Catalog, secret: Secret) -> set[str]:
    """Names of the files that cases refer to. StoreError when a path was sealed with another key."""
    found = set()
    with catalog.database.read() as connection:
        rows = connection.execution_options(yield_per=ROWS).scalars(select(files.c.sealed_path).distinct())
        for sealed in rows:
            source, reader = unseal(sealed, secret)
            if reader == KEPT:
                found.add(source.path.name)
    return found
