"""One change of memory."""

from __future__ import annotations

from typing import NamedTuple


class Change(NamedTuple):
    """Bytes [start, stop) of a region that are different.

    Attributes:
        region: the name of the region.
        start: its first byte, counted in the region.
        stop: the byte after its last one.
        before: a read-only view of what the bytes were, without a copy; empty in a one-sided diff.
        after: a read-only view of what they are, without a copy.
    """

    region: str
    start: int
    stop: int
    before: memoryview
    after: memoryview

    def __repr__(self) -> str:
        return (
            f"Change({self.region!r}, {self.start}, {self.stop}, {_show(self.before)} -> {_show(self.after)})"
        )


def _show(data: memoryview) -> str:
    return data[:8].hex(" ") + ("..." if len(data) > 8 else "")
