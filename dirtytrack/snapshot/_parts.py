"""What a diff consists of."""

from __future__ import annotations

from typing import NamedTuple


class Parts(NamedTuple):
    """What a diff consists of.

    Attributes:
        sizes: bytes of each region, by name.
        table: the rows of the changes, `ROW` numbers of 64 bits each, in order.
        before: what the bytes were, one change after the other; None: that is not known.
        after: what they are, likewise.
    """

    sizes: dict[str, int]
    table: bytes
    before: bytes | None
    after: bytes
