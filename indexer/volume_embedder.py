"""Drafts in, embedded cases out, for encoders that take volumes: one case after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterable

from indexer.drafts import Draft
from indexer.embedder import Embedder, Finished, as_decoded
from indexer.sandbox import Sandbox
from indexer.volumes import embed_volume, refusals
from retrieval.encoders.base import VolumeEncoder
from retrieval.errors import RejectedInput
from retrieval.gallery import Gallery
from retrieval.types import EmbeddedCase


class VolumeEmbedder:
    """Decodes a volume, encodes it, forgets it. A case the encoder does not take comes out refused, with the reason."""

    def __init__(
        self, sandbox: Sandbox, gallery: Gallery, encoder: VolumeEncoder, *, keep_images: bool = False
    ) -> None:
        self._sandbox = sandbox
        self._encoder = encoder
        self._pooling = gallery.pooling
        self._most_bytes = gallery.settings.volume_memory_mb << 20
        self._keep_images = keep_images

    def run(self, drafts: Iterable[Draft]) -> Generator[Finished]:
        """Every draft comes out once, in order."""
        for draft in drafts:
            yield self._finished(draft)

    def _finished(self, draft: Draft) -> Finished:
        try:
            read = embed_volume(self._sandbox, self._encoder, self._pooling, draft, self._most_bytes)
        except RejectedInput as error:
            return Finished(draft, None, refusals(draft, error))
        shown = read.images[len(read.images) // 2]
        embedded = EmbeddedCase(
            case=as_decoded(read.draft.case, read.digests, shown.pixels.shape, shown.spacing),
            embedding=read.embedding,
            files=read.draft.files,
            thumbnail=read.thumbnail,
        )
        return Finished(read.draft, embedded, read.failed, read.images if self._keep_images else ())


def embedder_of(gallery: Gallery, sandbox: Sandbox, *, keep_images: bool = False) -> Embedder | VolumeEmbedder:
    """What embeds drafts as the gallery's encoder asks: frame by frame, or as volumes."""
    encoder = gallery.encoder
    if isinstance(encoder, VolumeEncoder):
        return VolumeEmbedder(sandbox, gallery, encoder, keep_images=keep_images)
    return Embedder(sandbox, encoder, gallery.pooling, keep_images=keep_images)
