"""A part of a heap."""

from __future__ import annotations

import operator

from dirtytrack._lifetime.handle import Handle
from dirtytrack.tracking import Region


class Segment(Handle):
    """A part of a heap and its cards, made by `CardTable.grow`.

    Attributes:
        region: the memory, tracked.
        cards: the numbers of its cards in the table.
    """

    def __init__(self, region: Region, cards: range, card_size: int) -> None:
        self.region = region
        self.cards = cards
        self._card_size = card_size

    def card_of(self, address: int) -> int:
        """Returns the number of the card that an address is on. ValueError: it is not in the segment."""
        offset = operator.index(address) - self.region.address
        if not 0 <= offset < self.region.nbytes:
            raise ValueError(f"{address:#x} is not in {self!r}")
        return self.cards.start + offset // self._card_size

    def address_of(self, card: int) -> int:
        """Returns the first address of a card. ValueError: it is not one of the segment."""
        if card not in self.cards:
            raise ValueError(f"card {card} is not in {self!r}")
        return self.region.address + (card - self.cards.start) * self._card_size

    def __repr__(self) -> str:
        start = self.region.address
        return (
            f"<Segment [{start:#x}, {start + self.region.nbytes:#x}): "
            f"cards [{self.cards.start}, {self.cards.stop})>"
        )
