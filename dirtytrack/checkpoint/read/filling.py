"""A checkpoint's regions, written to memory that is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dirtytrack.checkpoint.format.layout import Layout, groups_of
from dirtytrack.checkpoint.read.archive import Archive
from dirtytrack.checkpoint.read.lineage import Node
from dirtytrack.checkpoint.read.state import State
from dirtytrack.errors import ChainError
from dirtytrack.tracking import refuse_overlaps


class Target(NamedTuple):
    """Memory for a region: its layout says which and what, the view has the bytes at the address."""

    layout: Layout
    address: int
    view: memoryview


def fill(archive: Archive, targets: Sequence[Target], at: int | str | None = None) -> Node:
    """Writes all bytes of the regions to their targets; returns the state that these hold now.

    Nothing is written where a region does not fit its target. After any other exception they are undefined.

    Raises:
        ChainError: a region does not fit, or the state can't be read; as `Archive.read_at`.
        ValueError: two regions have one target, and are not one memory.
    """

    def write(state: State) -> None:
        places = [archive.find_region(state.layouts, target.layout.name) for target in targets]
        for place, target in zip(places, targets, strict=True):
            if reason := state.layouts[place].mismatch(target.layout):
                raise ChainError(reason)
        groups = groups_of(state.layouts)
        first_at: dict[int, Target] = {}
        for target in targets:
            first = first_at.setdefault(target.address, target) if target.layout.nbytes else target
            if first.layout.name not in groups[target.layout.name]:
                both = (first.layout, target.layout)
                refuse_overlaps((target.address, layout.nbytes, layout.name) for layout in both)
        for place, target in zip(places, targets, strict=True):
            if first_at.get(target.address) is target:
                state.fill(place, target.view)

    return archive.read_at(at, write)[0]
