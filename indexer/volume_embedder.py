"""Drafts in, embedded cases out, for encoders that take volumes: one case after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterable

from indexer.drafts import Draft
from indexer.embedder import Embedder, Engine, Finished, as_decoded
from indexer.sandbox import Sandbox
from indexer.volumes import embed_volume, refusals
from retrieval.encoders.base import Encoder, VolumeEncoder
from retrieval.encoders.pooling import Pooling
from retrieval.errors import RejectedInput
from retrieval.types import EmbeddedCase


class VolumeEmbedder:
    """Decodes a volume, encodes it, forgets it. A case the encoder does not take comes out refused, with the reason.

    ``most_bytes``: of one volume, as read and resampled.
    """

    def __init__(
        self, sandbox: Sandbox, encoder: VolumeEncoder, pooling: Pooling, most_bytes: int, *, keep_images: bool = False
    ) -> None:
        self._sandbox = sandbox
        self._encoder = encoder
        self._pooling = pooling
        self._most_bytes = most_bytes
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


def embedder_of(
    encoder: Encoder, pooling: Pooling, sandbox: Sandbox, *, volume_bytes: int, keep_images: bool = False
) -> Engine:
    """What embeds drafts in this process as the encoder asks: frame by frame, or as volumes of at most
    ``volume_bytes``."""
    if isinstance(encoder, VolumeEncoder):
        return VolumeEmbedder(sandbox, encoder, pooling, volume_bytes, keep_images=keep_images)
    return Embedder(sandbox, encoder, pooling, keep_images=keep_images)
