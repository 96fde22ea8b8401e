"""What a gallery is opened with: the encoder and the pooling it is bound to, or those a user states, to be compared.

A setting that was stated (``--encoder``, ``PRECEDENT_ENCODER``, a keyword) is never passed over in silence: what it
names is opened, and the gallery refuses another fingerprint. A default states nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from retrieval.catalog.types import Binding
from retrieval.encoders import full_spec, open_encoder
from retrieval.encoders.base import Encoder, EncoderCard
from retrieval.encoders.pooling import Pooling, gallery_fingerprint
from retrieval.errors import FingerprintMismatch, NotFoundError, PrecedentError
from retrieval.settings import Settings


def binding_of(card: EncoderCard, pooling: Pooling) -> Binding:
    """What a gallery keeps of the encoder it is bound to."""
    card_json = json.dumps(asdict(card), sort_keys=True)
    return Binding(gallery_fingerprint(card, pooling), card.spec, card.dim, pooling.spec, card_json)


def open_bound(bound: Binding, settings: Settings) -> Encoder:
    """The encoder a user states, also for weights that have moved; else the one the gallery keeps.

    Raises FingerprintMismatch for a stated one that can't be opened: it can't be shown to be the gallery's.
    """
    stored = bound.encoder
    if "encoder" in settings.model_fields_set and full_spec(settings.encoder) != full_spec(stored):
        try:
            return open_encoder(settings.encoder)
        except PrecedentError as error:
            fix = f"That one can't be opened. {error} To open the gallery, leave it out: its own encoder is {stored}."
            raise FingerprintMismatch(bound.fingerprint, settings.encoder, fix) from error
    try:
        return open_encoder(stored)
    except NotFoundError as gone:
        raise NotFoundError(
            f"The encoder this gallery was made with, {stored}, can't be opened. {gone} If its weights have moved, "
            "name their new place with PRECEDENT_ENCODER."
        ) from gone


def mending(bound: Binding, settings: Settings) -> str:
    """What to do where a gallery and what it is opened with differ."""
    made = f"encoder {bound.encoder}, pooling {bound.pooling}"
    if settings.model_fields_set.isdisjoint({"encoder", "pooling", "max_slices"}):
        return (
            f"Nothing else was asked for ({made}), so the weights, their configuration or the library that reads them "
            "are not what they were: put those back, or index into a new data directory."
        )
    return (
        f"Open it with what it was made with ({made}): leave out others given as --encoder, --pooling, "
        "PRECEDENT_ENCODER, PRECEDENT_POOLING or PRECEDENT_MAX_SLICES. Or index into a new data directory."
    )


def bound_pooling(stored: str, settings: Settings) -> Pooling:
    """The pooling ``stored`` with the gallery, in what the user states replaced; the gallery compares."""
    own = Pooling.parse(stored)
    asked = Pooling.parse(settings.pooling) if "pooling" in settings.model_fields_set else own
    if "max_slices" in settings.model_fields_set:
        return Pooling(asked.how, settings.max_slices)
    return asked if "-" in settings.pooling else Pooling(asked.how, own.max_slices)


def pooling_anew(bound: Binding, settings: Settings, card: EncoderCard) -> Pooling:
    """The pooling of a gallery that is embedded anew: as stated, else its own; to and from volumes, the encoder's."""
    if card.volume is not None or json.loads(bound.card_json).get("volume") is not None:
        return new_pooling(settings, card)
    return bound_pooling(bound.pooling, settings)


def new_pooling(settings: Settings, card: EncoderCard) -> Pooling:
    """The pooling of a new gallery: ``mean`` with the setting's number of slices, or ``mean-64`` as stated; where
    nothing is stated, an encoder of volumes has its own."""
    if card.volume is not None and "pooling" not in settings.model_fields_set:
        return Pooling(card.volume.pooling, settings.max_slices)
    if "-" in settings.pooling:
        return Pooling.parse(settings.pooling)
    return Pooling(settings.pooling, settings.max_slices)
