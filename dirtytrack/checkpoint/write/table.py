"""The table of regions that saves are of, with what belongs to it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Self

from dirtytrack.checkpoint.format.description import TABLE_NAME_BYTES
from dirtytrack.checkpoint.format.layout import Layout, groups_of, stored
from dirtytrack.checkpoint.format.structures import block_count
from dirtytrack.checkpoint.write.block_hashes import BlockHashes
from dirtytrack.checkpoint.write.options import Options
from dirtytrack.checkpoint.write.staging import Staging


class Table:
    """The regions of a base and of the deltas to it. Where regions come or go the next save has another one.

    Attributes:
        name: names it in files.
        layouts: the regions, as files list them.
        hashes: what was last committed of them.
        staging: memory for what was captured of them.
        blocks: how many they have.
    """

    def __init__(self, name: str, layouts: tuple[Layout, ...], options: Options) -> None:
        own = stored(layouts)
        self.name = name
        self.layouts = layouts
        self.hashes = BlockHashes([layout.nbytes for layout in own])
        self.staging = Staging(options.staging(sum(layout.nbytes for layout in own)))
        self.blocks = sum(block_count(layout.nbytes) for layout in own)

    @classmethod
    def new(cls, layouts: Sequence[Layout], options: Options) -> Self:
        """Makes one that no file has."""
        return cls(new_table_name(), tuple(layouts), options)


def new_table_name() -> str:
    """A name that no table has."""
    return secrets.token_hex(TABLE_NAME_BYTES)


def fits(table: Sequence[Layout], layouts: Sequence[Layout]) -> bool:
    """Whether memory of these layouts can stand in for the regions of a table, all of them and no others."""
    ours = {layout.name: layout for layout in layouts}
    if ours.keys() != {layout.name for layout in table} or groups_of(layouts) != groups_of(table):
        return False
    return not any(layout.mismatch(ours[layout.name]) for layout in table)
