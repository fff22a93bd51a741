"""What differs between two checkpoints of a chain, region by region."""

from __future__ import annotations

import functools
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dirtytrack.checkpoint.format.layout import Layout
from dirtytrack.checkpoint.format.structures import BLOCK, Span
from dirtytrack.checkpoint.read.archive import Archive
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile
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
        ChainError: a file is damaged.
        ImportError: without numpy, naming the extra.
    """
    try:
        import numpy  # noqa: F401 - before anything is read
    except ImportError as error:
        raise ImportError('a comparison needs numpy: pip install "dirtytrack[numpy]"') from error
    old = {layout.name: place for place, layout in enumerate(before.layouts)}
    new = {layout.name: place for place, layout in enumerate(after.layouts)}
    one, other = _Told(archive, before, after), _Told(archive, after, before)
    for name, place in new.items():
        layout = after.layouts[place]
        if name not in old:
            yield Difference(name, None, layout)
            continue
        earlier = before.layouts[old[name]]
        found = Difference(name, earlier, layout)
        if earlier.nbytes == layout.nbytes:
            counts = _Counts(_itemsize(layout))
            for first, stop in merged(one.unlike(old[name], other, place)):
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


class _Told:
    # What files say of the blocks of a state, by place in its table.

    def __init__(self, archive: Archive, node: Node, other: Node) -> None:
        self._archive, self._node = archive, node
        archive.read(node, functools.partial(self._learn, {*other.files()}))

    def _learn(self, files: Container[CheckpointFile], state: State) -> None:
        shared = [file for file in state.files if file in files]
        self._alone = state.stored_in(file for file in state.files if file not in files)
        self._shared = shared[-1] if shared else None
        self._origins = state.origins(shared[-1]) if shared else {}

    def unlike(self, place: int, other: _Told, there: int) -> list[Span]:
        # The blocks of a region that may differ: others are those of the last file that both have, or zeros.
        mine, theirs = _owner(self._node, place), _owner(other._node, there)
        origin = self._origins.get(mine)
        if self._shared is not other._shared or (
            self._shared is not None and (origin is None or origin != other._origins.get(theirs))
        ):
            return self._all.get(mine, []) + other._all.get(theirs, [])
        return self._alone.get(mine, []) + other._alone.get(theirs, [])

    @functools.cached_property
    def _all(self) -> dict[int, list[Span]]:
        return self._archive.read(self._node, lambda state: state.stored_in(state.files))


def _owner(node: Node, place: int) -> int:
    same_as = node.layouts[place].same_as
    return place if same_as is None else same_as


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
