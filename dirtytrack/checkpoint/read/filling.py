"""A checkpoint's regions, written to memory that is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from dirtytrack.checkpoint.format.layout import Layout, groups_of
from dirtytrack.checkpoint.read.archive import Archive
from dirtytrack.checkpoint.read.lineage import Node
from dirtytrack.checkpoint.read.state import State
from dirtytrack.errors import ChainError
from dirtytrack.kernel.touch import Memory
from dirtytrack.tracking import refuse_overlaps

_UNDEFINED = "What the regions hold is undefined now: restore again when all of them can be touched"


class Target(NamedTuple):
    """Memory for a region: its layout says which and what."""

    layout: Layout
    memory: Memory

    @classmethod
    def of(cls, layout: Layout, view: memoryview) -> Self:
        """Makes one of the memory's bytes."""
        return cls(layout, Memory(f"region {layout.name!r}", view, _UNDEFINED))


def fill(
    archive: Archive,
    targets: Sequence[Target],
    at: int | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Node:
    """Writes all bytes of the regions to their targets; returns the state that these hold now.

    Nothing is written where a region does not fit its target, or where that is seen to be protected. After
    any other exception they are undefined.

    Raises:
        ChainError: a region does not fit, or the state can't be read; as `Archive.read_at`.
        ValueError: two regions have one target, and are not one memory.
        KernelError: a target can't be touched; it says which, where, and whether anything was written.
    """

    def write(state: State) -> None:
        places = archive.find_regions(state.layouts, [target.layout.name for target in targets])
        for place, target in zip(places, targets, strict=True):
            if reason := state.layouts[place].mismatch(target.layout):
                raise ChainError(reason)
        groups = groups_of(state.layouts)
        first_at: dict[int, Target] = {}
        for target in targets:
            first = first_at.setdefault(target.memory.address, target) if target.layout.nbytes else target
            if first.layout.name not in groups[target.layout.name]:
                both = (first.layout, target.layout)
                refuse_overlaps((target.memory.address, layout.nbytes, layout.name) for layout in both)
        for target in first_at.values():
            target.memory.check_writable("Nothing was written")
        state.fill(
            {
                place: target.memory
                for place, target in zip(places, targets, strict=True)
                if first_at.get(target.memory.address) is target
            },
            progress=progress,
        )

    return archive.read_at(at, write)[0]
