"""What the gallery is."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter

from api.access import Reader
from api.problems import responses
from api.schemas import INTENDED_USE, EncoderBody, GalleryBody
from api.wire import facets

router = APIRouter(prefix="/v1", tags=["gallery"])


@router.get("/gallery", response_model=GalleryBody, responses=responses())
def get_gallery(caller: Reader) -> GalleryBody:
    """Size, encoder, live generation, and what can be filtered by."""
    gallery = caller.service.gallery
    state = gallery.state()
    return GalleryBody(
        size=state.size,
        encoder=EncoderBody(name=state.encoder, fingerprint=state.fingerprint),
        adapter=state.adapter,
        dim=state.dim,
        pooling=state.pooling,
        accepts_text=gallery.encoder.card.text and not state.adapter,
        generation=state.generation,
        delta=state.delta,
        damaged=state.damaged,
        facets=facets(gallery.catalog.counts()),
        max_upload_mb=gallery.settings.max_upload_mb,
        version=version("precedent"),
        intended_use=INTENDED_USE,
    )
