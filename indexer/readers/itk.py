"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr), the files of the ITK world.

Both are a short text header and plain or deflated voxels, so they are read here directly, by the header of
``metaimage`` or ``nrrd``: ITK's own readers can be crashed by a header of a few hundred bytes. The tests hold the
outcome against SimpleITK.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from indexer.limits import Limits
from indexer.readers import metaimage, nrrd
from indexer.readers.bytes import open_source
from indexer.readers.volume import VolumeHeader, read_volume, scan_volume
from indexer.sources import Scan, Source
from retrieval.errors import RejectedInput
from retrieval.types import Image

MOST_HEADER = 1 << 20


class ItkReader:
    format = "itk"

    def can_read(self, head: bytes, name: str) -> bool:
        return nrrd.is_nrrd(head) or metaimage.is_metaimage(head)

    def scan(self, source: Source, limits: Limits) -> Scan:
        return scan_volume(_header(source, limits), self.format, limits)

    def read(self, source: Source, frames: Sequence[int] | None, limits: Limits) -> Iterator[tuple[int, Image]]:
        return read_volume(_header(source, limits), frames, limits)


def _header(source: Source, limits: Limits) -> VolumeHeader:
    with open_source(source, limits) as stream:
        head = stream.read(MOST_HEADER)
    try:
        parse = nrrd.header if nrrd.is_nrrd(head) else metaimage.header
        return parse(source, head, limits)
    except (ValueError, OverflowError, IndexError, KeyError) as error:
        raise RejectedInput(
            "scan", "The volume's header is damaged: a size, type or direction in it is not valid."
        ) from error
