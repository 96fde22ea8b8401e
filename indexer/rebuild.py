"""When and how the index is built anew from what SQL holds: no pixel is read."""

from __future__ import annotations

from contextlib import suppress

from retrieval.building import Progress
from retrieval.catalog import GenerationRow
from retrieval.errors import ConflictError
from retrieval.gallery import Gallery
from retrieval.manifest import Manifest
from retrieval.publish import Publication, publish, publish_compared
from retrieval.publish import rollback as roll_back
from retrieval.shadow_figures import Gates

STALE_VECTORS = 10_000  # a delta this large, and a quarter of the gallery, is worth a new generation
STALE_SHARE = 0.25


def rebuild(gallery: Gallery, *, backend: str | None = None, progress: Progress | None = None) -> Manifest:
    """Build, check and publish a generation of everything on file; searches go on meanwhile.

    ``backend``: ``exact`` or ``faiss[:FACTORY]``, by default the settings'. Raises as ``retrieval.publish.publish``.
    """
    return publish(gallery.catalog, gallery.settings.home, backend or gallery.settings.index, progress=progress)


def rebuild_compared(
    gallery: Gallery,
    *,
    backend: str | None = None,
    gates: Gates | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Publication:
    """As ``rebuild``, compared with the live generation first: see ``retrieval.publish.publish_compared``."""
    return publish_compared(
        gallery.catalog,
        gallery.settings.home,
        backend or gallery.settings.index,
        gates=gates,
        dry_run=dry_run,
        progress=progress,
    )


def rollback(gallery: Gallery) -> GenerationRow:
    """Make the previous generation live again, with the encoder it was made with; nothing on file is lost, what came
    since is searched exactly."""
    return roll_back(gallery.catalog, gallery.settings.home)


def freshen(gallery: Gallery, *, stale_vectors: int = STALE_VECTORS) -> str:
    """After indexing: publish when the part searched without an index has grown large. The new name, or "".

    Nothing depends on it, so one that another process is publishing already is left to it.
    """
    state = gallery.state()
    if state.damaged or (state.delta >= stale_vectors and state.delta >= STALE_SHARE * state.size):
        with suppress(ConflictError):
            return rebuild(gallery).name
    return ""
