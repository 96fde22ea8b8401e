"""Whether an encoder takes text, and what to say when it does not."""

from __future__ import annotations

from retrieval.encoders import known_encoders
from retrieval.encoders.base import Encoder, TextEncoder
from retrieval.errors import UsageError


def text_encoder(encoder: Encoder) -> TextEncoder:
    """The same encoder with its text tower; UsageError with why it has none and the names of encoders that do."""
    if isinstance(encoder, TextEncoder) and encoder.card.text:
        return encoder
    card = encoder.card
    why = f" ({card.notes})" if card.notes.startswith("no text") else ""
    raise UsageError(
        f"The encoder '{card.name}' has no text tower{why}, so text can't be compared with images. Index into a new "
        f"data directory with an encoder that has one: {', '.join(text_specs())}."
    )


def text_specs() -> list[str]:
    """How the known encoders with a text tower are named (``precedent index --encoder``)."""
    return [known.spec for known in known_encoders() if known.text]
