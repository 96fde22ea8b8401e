"""Reads every stored byte again, slowly: the database, and the pixels kept of uploads."""

from __future__ import annotations

from indexer.kept_names import kept_names
from indexer.limits import Limits
from indexer.originals import KEPT
from indexer.readers.kept import KeptReader
from indexer.sources import Source
from retrieval.errors import RejectedInput
from retrieval.gallery import Gallery
from retrieval.verify import Check
from retrieval.verify.scrub import Pace, scrub_database


def scrub(gallery: Gallery, pace: Pace) -> tuple[Check, ...]:
    """What ``verify`` does not read: pages of the database that hold no vector, and kept uploads, frame by frame.

    Neither can be mended from elsewhere: what is damaged has to come from a backup.
    """
    return (scrub_database(gallery.catalog.database, pace), *_scrub_kept(gallery, pace))


def _scrub_kept(gallery: Gallery, pace: Pace) -> tuple[Check, Check]:
    reader, limits = KeptReader(), Limits.of(gallery.settings)
    damaged, missing = [], set()
    for name in sorted(kept_names(gallery.catalog, gallery.secret)):
        path = gallery.settings.home / KEPT / name
        try:
            for _ in reader.read(Source(path), None, limits):
                pace.rest()
        except RejectedInput:
            if path.exists():
                damaged.append(name)
            else:
                missing.add(name)
    if missing:  # those of cases that were deleted while this went on are not missed
        missing &= kept_names(gallery.catalog, gallery.secret)
    named = f" ({', '.join(damaged[:5])}{', ...' if len(damaged) > 5 else ''}): restore them from a backup"
    return (
        Check("kept-damaged", len(damaged), f"{len(damaged)} kept uploads are damaged{named if damaged else ''}."),
        Check("kept-missing", len(missing), f"{len(missing)} kept uploads are missing: their cases can't be shown."),
    )
