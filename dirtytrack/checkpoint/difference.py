"""What differs between two checkpoints of a chain, region by region."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dirtytrack.checkpoint.format.layout import Layout
from dirtytrack.checkpoint.format.structures import BLOCK, Span
from dirtytrack.checkpoint.read.archive import Archive
from dirtytrack.checkpoint.read.lineage import Node
from dirtytrack.checkpoint.read.state import State

if TYPE_CHECKING:
    import numpy as np

_PIECE = 1024  # blocks compared at a time


@dataclass(frozen=True)
class Difference:
    """A region that differs between two checkpoints.

    Attributes:
        name: of the region.
        before: what it was; None: it was not there.
        after: what it is; None: it is not there any more.
        blocks: how many of its blocks of 4096 bytes differ, where it is as long as it was; else 0.
        nbytes: how many of its bytes do.
        elements: how many of its elements do, as the later checkpoint has them; bytes where it has none.
    """

    name: str
    before: Layout | None
    after: Layout | None
    blocks: int = 0
    nbytes: int = 0
    elements: int = 0

    @property
    def kind(self) -> Literal["added", "removed", "replaced", "changed"]:
        """What became of it; "replaced": its length, or its elements' type, shape or order, differ."""
        if self.before is None:
            return "added"
        if self.after is None:
            return "removed"
        return "replaced" if self.before.mismatch(self.after) else "changed"


def differences(archive: Archive, before: Node, after: Node) -> Iterator[Difference]:
    """The regions that differ, those of the later state in its order, then those that are gone.

    Only what a file says that one of the two stands on alone is read.

    Raises:
        ChainError: a file is damaged. ImportError: without numpy, naming the extra.
    """
    try:
        import numpy  # noqa: F401 - before anything is read
    except ImportError as error:
        raise ImportError('a comparison needs numpy: pip install "dirtytrack[numpy]"') from error
    old = {layout.name: place for place, layout in enumerate(before.layouts)}
    new = {layout.name: place for place, layout in enumerate(after.layouts)}
    spans = [_own_blocks(archive, one, other) for one, other in ((before, after), (after, before))]
    for name, place in new.items():
        layout = after.layouts[place]
        if name not in old:
            yield Difference(name, None, layout)
            continue
        earlier = before.layouts[old[name]]
        found = Difference(name, earlier, layout)
        if earlier.nbytes == layout.nbytes:
            blocks = merged([*spans[0].get(old[name], ()), *spans[1].get(place, ())])
            counts = _Counts(_itemsize(layout))
            for first, stop in blocks:
                counts.add(
                    first * BLOCK,
                    archive.read(before, functools.partial(_read, old[name], first, stop)),
                    archive.read(after, functools.partial(_read, place, first, stop)),
                )
            found = Difference(name, earlier, layout, counts.blocks, counts.nbytes, counts.elements)
        if found.blocks or found.kind != "changed":
            yield found
    for name, place in old.items():
        if name not in new:
            yield Difference(name, before.layouts[place], None)


def merged(spans: Iterable[Span]) -> Iterator[Span]:
    """The same blocks in order, each once, in spans of bounded length."""
    start = stop = 0
    for one, end in sorted(spans):
        if one > stop:
            yield from _pieces(start, stop)
            start = one
        stop = max(stop, end)
    yield from _pieces(start, stop)


def _pieces(start: int, stop: int) -> Iterator[Span]:
    for first in range(start, stop, _PIECE):
        yield first, min(first + _PIECE, stop)


def _own_blocks(archive: Archive, node: Node, other: Node) -> dict[int, list[Span]]:
    # By place in the node's table: what files say that the other one does not stand on.
    shared = set(other.files())
    found = archive.read(
        node, lambda state: state.stored_in(one for one in node.files() if one not in shared)
    )
    owners = [place if one.same_as is None else one.same_as for place, one in enumerate(node.layouts)]
    return {place: found[owner] for place, owner in enumerate(owners) if owner in found}


def _read(place: int, first: int, stop: int, state: State) -> bytearray:
    end = min(stop * BLOCK, state.layouts[place].nbytes)
    state.expect(place, first * BLOCK, end)
    return state.read(place, first * BLOCK, end)


def _itemsize(layout: Layout) -> int:
    # Whatever the file says of them.
    count = 1
    for length in (layout.nbytes,) if layout.shape is None else layout.shape:
        count *= length
    return layout.nbytes // count if count and layout.nbytes % count == 0 else 1


class _Counts:
    # Of what differs, told piece by piece, from the first to the last.

    def __init__(self, itemsize: int) -> None:
        self.blocks = self.nbytes = self.elements = 0
        self._itemsize = itemsize
        self._last = -1  # the element counted last

    def add(self, start: int, before: bytearray, after: bytearray) -> None:
        import numpy as np

        if before == after:
            return
        differing: np.ndarray[tuple[int], np.dtype[np.int64]] = np.flatnonzero(
            np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8)
        )
        elements = np.unique((start + differing) // self._itemsize)
        self.nbytes += len(differing)
        self.blocks += len(np.unique(differing // BLOCK))
        self.elements += len(elements) - int(elements[0] == self._last)
        self._last = int(elements[-1])
