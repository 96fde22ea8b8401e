"""The encoder a gallery is bound to, by the spec it keeps; also when the weights have moved since."""

from __future__ import annotations

from retrieval.encoders import full_spec, open_encoder
from retrieval.encoders.base import Encoder
from retrieval.errors import NotFoundError


def open_bound(stored: str, asked: str) -> Encoder:
    """The encoder ``stored`` with a gallery; or the one ``asked`` for, of the same family, where that place is empty.

    Which weights are there is the gallery's to compare: it refuses another fingerprint.
    """
    try:
        return open_encoder(stored)
    except NotFoundError as gone:
        same_family = asked.partition(":")[0] == stored.partition(":")[0]
        if same_family and full_spec(asked) != full_spec(stored):
            return open_encoder(asked)
        raise NotFoundError(
            f"The encoder this gallery was made with, {stored}, can't be opened. {gone} If its weights have moved, "
            "name their new place with PRECEDENT_ENCODER."
        ) from gone
