"""The table of regions that saves are of, with what belongs to it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dirtytrack.checkpoint.format.description import TABLE_NAME_BYTES
from dirtytrack.checkpoint.format.layout import Layout, groups_of, stored
from dirtytrack.checkpoint.format.new_table import NewTable, common_blocks
from dirtytrack.checkpoint.format.structures import BLOCK, block_count
from dirtytrack.checkpoint.write.block_hashes import BlockHashes
from dirtytrack.checkpoint.write.options import Options
from dirtytrack.checkpoint.write.staging import Staging
from dirtytrack.tracking import Region


class Table:
    """Regions, as long as they are the same memory. Where they come, go or move the next save has another.

    A region may go on with one of the last save's table, so that what did not change is not stored again.
    The same tracked memory has to, since what is known of it is what was written since. Memory that is new
    was read as a whole, and goes on with what has its name; but of what is sparse nothing was read that is
    not populated, so that begins with zeros.

    Attributes:
        layouts: the regions, as files list them.
        hashes: what was last committed of them.
        staging: memory for what was captured of them.
        blocks: how many they have.
    """

    hashes: BlockHashes
    staging: Staging

    def __init__(
        self,
        layouts: Sequence[Layout],
        regions: Mapping[str, Region],
        options: Options,
        before: Table | None = None,
    ) -> None:
        """Makes one.

        Args:
            layouts: the regions.
            regions: the memory of each that is stored, by name. Where there is none it is unknown what was
                committed.
            options: of the writer.
            before: one that it may follow.
        """
        own = stored(layouts)
        self.layouts = tuple(layouts)
        sizes = [layout.nbytes for layout in own]
        self.hashes = BlockHashes(sizes, None if before is None else before.hashes)
        self.blocks = sum(block_count(layout.nbytes) for layout in own)
        self._ids = [regions[one.name].id if one.name in regions else None for one in own]  # never used twice
        self._sparse = [one.name in regions and regions[one.name].sparse for one in own]
        wanted = options.staging(sum(sizes))
        will_do = before is not None and before.staging.blocks * BLOCK >= wanted // 2
        self.staging = before.staging if before is not None and will_do else Staging(wanted)

    def is_of(self, layouts: Sequence[Layout], regions: Mapping[str, Region]) -> bool:
        """Whether these are its regions, and the memory of each is the same."""
        if not fits(self.layouts, layouts):
            return False
        return self._ids == [regions[layout.name].id for layout in stored(self.layouts)]

    def knows(self, region: Region) -> bool:
        """Whether this memory is one of its regions."""
        return region.id in self._ids

    def follow(self, before: Table) -> NewTable:
        """Goes on with a table of which everything is committed: with its hashes, too."""
        origins = self._origins(before)
        ours, theirs = stored(self.layouts), stored(before.layouts)
        counts = [
            0 if origin is None else common_blocks(theirs[origin].nbytes, one.nbytes)
            for one, origin in zip(ours, origins, strict=True)
        ]
        self.hashes.follow(before.hashes, [origin or 0 for origin in origins], counts)
        return NewTable.of(before.layouts, self.layouts, origins)

    def _origins(self, before: Table) -> list[int | None]:
        known = {number: place for place, number in enumerate(before._ids) if number is not None}
        origins = [known.get(number) if number is not None else None for number in self._ids]
        free = {
            layout.name: place if layout.same_as is None else layout.same_as
            for place, layout in enumerate(before.layouts)
            if layout.nbytes
        }
        taken = {None, *origins, *(place for place, number in enumerate(before._ids) if number is None)}
        for place, layout in enumerate(stored(self.layouts)):
            origin = free.get(layout.name)
            if origins[place] is None and not self._sparse[place] and origin not in taken:
                origins[place] = origin
                taken.add(origin)
        return origins


def new_table_name() -> str:
    """A name that no table has."""
    return secrets.token_hex(TABLE_NAME_BYTES)


def fits(table: Sequence[Layout], layouts: Sequence[Layout]) -> bool:
    """Whether memory of these layouts can stand in for the regions of a table, all of them and no others."""
    ours = {layout.name: layout for layout in layouts}
    if ours.keys() != {layout.name for layout in table} or groups_of(layouts) != groups_of(table):
        return False
    return not any(layout.mismatch(ours[layout.name]) for layout in table)


def in_order_of(table: Sequence[Layout], layouts: Sequence[Layout]) -> Sequence[Layout]:
    """The same regions in the order of a table that they fit, so that nothing is to be said of a change."""
    if not fits(table, layouts):
        return layouts
    sizes = {layout.name: layout.page_size for layout in layouts}
    return [replace(one, page_size=sizes[one.name], linear=None) for one in table]
