"""What encoders that run a network have in common beside the running: their card, and another in its place."""

from __future__ import annotations

from copy import copy
from typing import Self

from retrieval.encoders.base import EncoderCard


class Carded:
    """Keeps a card."""

    def __init__(self, card: EncoderCard) -> None:
        self._card = card

    @property
    def card(self) -> EncoderCard:
        return self._card

    def with_card(self, card: EncoderCard) -> Self:
        """The same network, all it holds shared, under a card with another recipe."""
        other = copy(self)
        other._card = card
        return other
