"""The base rates of a gallery's labels, read once and kept until the gallery has changed by a tenth."""

from __future__ import annotations

from collections.abc import Iterable

from retrieval.evidence.votes import LabelRates, rates_of
from retrieval.gallery import Gallery


def gallery_rates(gallery: Gallery, labels: Iterable[str]) -> tuple[LabelRates, ...]:
    """The base rates of these labels, in order; of a label that is not on file, rates without any value.

    The first call for a label reads it of every case; later ones are free until a tenth of the gallery has changed.
    """
    return tuple(_rates(gallery, label) for label in labels)


def _rates(gallery: Gallery, label: str) -> LabelRates:
    def read() -> LabelRates:
        found = gallery.catalog.labelled(label)
        return rates_of(label, found.patient_keys, found.values)

    return gallery.kept.of(("rates", label), gallery.catalog.heads(), len(gallery), read)
