"""Which states the files of a chain make up, and which files do not fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dirtytrack.checkpoint.format.layout import stored
from dirtytrack.checkpoint.format.new_table import Origins, common_blocks
from dirtytrack.checkpoint.format.structures import NO_PARENT, FileName, FormatError, Kind, shortened
from dirtytrack.checkpoint.read.block_owners import FileTable
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile, Layouts

_SHOWN = 4


@dataclass(frozen=True, eq=False)
class Node:
    """A state of which all files are there.

    Attributes:
        file: its own one.
        below: what that stands on, if it is a delta.
        layouts: the table of regions, as its own file has it, or that of the state below.
        origins: where the table is another one than that below, with which region of that each stored one
            goes on, as `Succession` has it; else None.
    """

    file: CheckpointFile
    below: Node | None
    layouts: Layouts
    origins: Origins | None = None

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


def tables_of(node: Node) -> dict[CheckpointFile, FileTable]:
    """What of each file that makes a state up counts for it, the base first."""
    stack = node.stack()
    sizes = _sizes(node)
    table = FileTable.of_itself(sizes)
    tables = [table]
    for later, earlier in zip(reversed(stack), reversed(stack[:-1]), strict=False):
        if later.origins is not None:
            table = _before(table, later.origins, _sizes(earlier))
        tables.append(table)
    return dict(zip((one.file for one in stack), reversed(tables), strict=True))


def _before(table: FileTable, origins: Origins, sizes: list[int]) -> FileTable:
    # That of the files below one that begins another table of regions.
    places, counts = [0] * len(sizes), [0] * len(sizes)
    for place, origin in enumerate(origins):
        if origin is not None:
            places[origin] = table.places[place]
            counts[origin] = min(table.counts[place], common_blocks(sizes[origin], table.sizes[place]))
    return FileTable(sizes, places, counts)


def _sizes(node: Node) -> list[int]:
    return [layout.nbytes for layout in stored(node.layouts)]


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
            try:
                nodes[key] = Node(file, below, *table_of(file, below))
            except FormatError as error:
                misfits[file.name] = str(error)
    return nodes, misfits


def table_of(file: CheckpointFile, below: Node | None) -> tuple[Layouts, Origins | None]:
    """The table of a file that stands on a state, or if that is None on nothing; and its origins.

    Raises:
        FormatError: its table does not fit that of the state.
    """
    if below is None:
        return file.layouts, None
    if file.new_table is not None:
        return file.new_table.follow(below.layouts)
    # Where a base has its regions is no part of the table of a delta to it.
    return below.layouts if below.below else tuple(layout.at(None) for layout in below.layouts), None


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
    if (parent.description.table == file.description.table) != (file.new_table is None):
        return f"its table of regions differs from that of its parent {parent.name}, or has its name"
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
