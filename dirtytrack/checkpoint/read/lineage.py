"""Which states the files of a chain make up, and which files do not fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dirtytrack.checkpoint.format.structures import NO_PARENT, FileName, Kind, shortened
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile, Layouts

_SHOWN = 4


@dataclass(frozen=True, eq=False)
class Node:
    """A state of which all files are there.

    Attributes:
        file: its own one.
        below: what that stands on, if it is a delta.
        layouts: the table of regions, as its own file has it, or the one that a base without its own has.
    """

    file: CheckpointFile
    below: Node | None
    layouts: Layouts

    @property
    def number(self) -> int:
        """Grows along the chain."""
        return self.file.header.number

    @property
    def id(self) -> str:
        """Identifier of the state, 32 hexadecimal digits."""
        return self.file.header.checkpoint.hex()

    @property
    def parent(self) -> str | None:
        """The identifier of the state that it followed, whether that is there or not; None for the first."""
        parent = self.file.header.parent
        return None if parent == NO_PARENT else parent.hex()

    def files(self) -> list[CheckpointFile]:
        """The files that make it up, the base first."""
        return [node.file for node in self.stack()]

    def stack(self) -> list[Node]:
        """What its file stands on, the base first, and it itself."""
        nodes = []
        at: Node | None = self
        while at is not None:
            nodes.append(at)
            at = at.below
        return nodes[::-1]


Nodes = dict[str, Node]  # by identifier, in the order of their numbers


def arrange(files: list[CheckpointFile]) -> tuple[Nodes, dict[FileName, str]]:
    """The states of which all files are there, and why other files can't be used."""
    nodes: Nodes = {}
    misfits: dict[FileName, str] = {}
    by_id = {file.header.checkpoint: file for file in files}
    # A parent has a smaller number, so it comes before what stands on it. Of two files for one state the base
    # comes first.
    for file in sorted(files, key=lambda file: (file.name.number, file.name.kind)):
        header, key = file.header, file.header.checkpoint.hex()
        reason = _misfit(file, nodes, by_id)
        if reason is not None:
            misfits[file.name] = reason
        elif key not in nodes:
            below = nodes[header.parent.hex()] if header.kind is Kind.DELTA else None
            nodes[key] = Node(file, below, file.layouts if below is None else _inherited(below))
    return nodes, misfits


def _inherited(below: Node) -> Layouts:
    # The table of a delta to it: where a base has its regions is no part of that.
    return below.layouts if below.below else tuple(layout.at(None) for layout in below.layouts)


def _misfit(file: CheckpointFile, nodes: Nodes, by_id: dict[bytes, CheckpointFile]) -> str | None:
    # Why a file can't be used although it is intact.
    header = file.header
    twin, below = nodes.get(header.checkpoint.hex()), nodes.get(header.parent.hex())
    if twin is not None:
        other = twin.file
        same = _same(other) == _same(file)
        if not same or (file.layouts and _identity(file.layouts) != _identity(twin.layouts)):
            return f"it claims to be the same state as {other.name}, and differs from it"
        return None
    parent = by_id.get(header.parent) if below is None else below.file
    if parent is not None and parent.name.number >= header.number:
        return f"its number is not greater than that of its parent {parent.name}"
    if header.kind is Kind.BASE:
        return None
    if parent is None:
        return f"its parent, checkpoint {header.parent.hex()}, is damaged or not there"
    if below is None:
        return f"its parent {parent.name} can't be used"
    if parent.description.table != file.description.table:
        return f"its table of regions differs from that of its parent {parent.name}"
    return None


def _same(file: CheckpointFile) -> tuple[object, ...]:
    # What two files of one state have in common; with
    return file.header.number, file.header.parent, file.description.table


def _identity(layouts: Layouts) -> list[tuple[object, ...]]:
    # ... this, if they have it.
    return [layout.identity for layout in layouts]


def first_few_of(items: Iterable[object]) -> str:
    """The first of them, as part of a message."""
    found = list(items)
    more = len(found) - _SHOWN
    return ", ".join(shortened(str(item)) for item in found[:_SHOWN]) + (
        f", and {more} more" if more > 0 else ""
    )
