"""Where a writer begins: with a new chain, or at a checkpoint that it restores."""

from __future__ import annotations

import errno
import json
import mmap
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from dirtytrack._lifetime.undo import Undo
from dirtytrack.checkpoint.format.description import TABLE_NAME_BYTES
from dirtytrack.checkpoint.format.layout import Layout, groups_of
from dirtytrack.checkpoint.format.structures import (
    BLOCK,
    MAX_DESCRIPTION,
    MAX_NUMBER,
    NO_PARENT,
    FileName,
    block_count,
)
from dirtytrack.checkpoint.read.archive import opened
from dirtytrack.checkpoint.read.filling import Target, fill
from dirtytrack.checkpoint.read.lineage import Node, first_few_of
from dirtytrack.checkpoint.read.populated import populated
from dirtytrack.checkpoint.store.protocol import Store
from dirtytrack.checkpoint.write.block_hashes import BlockHashes
from dirtytrack.errors import ChainError
from dirtytrack.kernel.touch import Memory
from dirtytrack.tracking import Region, Session, resolve, track_many

_MAX_FIRST_NUMBER = MAX_NUMBER // 2
_MAX_TABLE = MAX_DESCRIPTION // 2 - 4096  # the other half is for the meta


class Origin(NamedTuple):
    """Where a writer begins.

    Attributes:
        chain: identifier of the chain.
        parent: the checkpoint that memory holds, or NO_PARENT.
        layouts: the table of regions.
        table: its name.
        meta: of that checkpoint, as JSON text; of a new chain null.
        next_number: greater than any in the directory, of whatever file.
        numbers: the checkpoints that lead there, oldest first.
        files: what memory was restored from: a base, and deltas in order.
    """

    chain: bytes
    parent: bytes
    layouts: tuple[Layout, ...]
    table: str
    meta: str
    next_number: int
    numbers: list[int]
    files: tuple[FileName, ...]


def track(
    memories: dict[str, object], session: Session | None, undo: Undo
) -> tuple[Session, dict[str, Region], list[Layout]]:
    """Tracks the memory; *undo* ends that.

    Returns:
        The session; the region of each name whose memory has bytes, one region for names of the same memory;
        and the table of regions.

    Raises:
        ValueError: it takes too long a description. Others: as `Session.track`.
    """
    found = {name: resolve(memory, empty=True) for name, memory in memories.items()}
    owners: dict[tuple[int, int], str] = {}
    for name in sorted(found, key=lambda name: not isinstance(memories[name], Region)):  # regions come first
        if found[name].nbytes:
            owners.setdefault((found[name].address, found[name].nbytes), name)
    session, regions = track_many({name: memories[name] for name in owners.values()}, session, undo)
    layouts = [Layout.of(name, found[name], region.page_size) for name, region in regions.items()]
    for name in [name for name in found if name not in regions]:
        owner = owners.get((found[name].address, found[name].nbytes))
        layout = Layout.of(name, found[name], regions[owner].page_size if owner else mmap.PAGESIZE)
        if owner:
            layout = replace(layout, same_as=list(owners.values()).index(owner))
        layouts.append(layout)
    regions |= {one.name: regions[layouts[one.same_as].name] for one in layouts if one.same_as is not None}
    length = len(json.dumps([layout.to_json() for layout in layouts]))
    if length > _MAX_TABLE:
        raise ValueError(
            f"names and element types take {length} bytes in each file: at most {_MAX_TABLE}; give bytes"
        )
    return session, regions, layouts


def start(store: Store, layouts: list[Layout], _regions: dict[str, Region]) -> Origin:
    """A new chain in a directory that holds none.

    Raises:
        FileExistsError: it holds one.
    """
    if FileName.among(store.names()):
        raise FileExistsError(
            errno.EEXIST,
            "there is a chain already: resume() it, open() it, or choose another path",
            store.place,
        )
    table = secrets.token_hex(TABLE_NAME_BYTES)
    return Origin(secrets.token_bytes(16), NO_PARENT, tuple(layouts), table, "null", 1, [], ())


def resume(
    store: Store, layouts: list[Layout], regions: dict[str, Region], at: int | str | None = None
) -> Origin:
    """Restores a checkpoint into the regions.

    Raises:
        ChainError: it can't be restored, or the regions are not those of the chain.
    """
    with opened(store) as archive:
        _check_names(store, archive.newest if at is None else archive.find(at), layouts)
        node = fill(archive, [_target(layout, regions) for layout in layouts], at)
        number = FileName.among(store.names())[-1].number + 1
        if number > _MAX_FIRST_NUMBER:
            raise ChainError(
                f"a file in {store.place} claims to be checkpoint {number - 1}, "
                "which leaves none: move it away"
            )
        sizes = {layout.name: layout.page_size for layout in layouts}
        return Origin(
            node.file.header.chain,
            node.file.header.checkpoint,
            tuple(replace(one, page_size=sizes[one.name], linear=None) for one in node.layouts),
            node.file.description.table,
            node.file.description.meta,
            number,
            [one.number for one in archive.lineage(node)],
            tuple(file.name for file in node.files()),
        )


def start_or_resume(store: Store, layouts: list[Layout], regions: dict[str, Region]) -> Origin:
    """Resumes a chain if there is a file of one, else starts it."""
    return (resume if FileName.among(store.names()) else start)(store, layouts, regions)


def learn(regions: Sequence[Region], hashes: BlockHashes) -> int:
    """Hashes what memory holds, which is committed; memory without a page is zeros, and stays without one.

    Returns:
        How many bytes hold something: blocks that are not zeros.

    Raises:
        KernelError: some of it can't be read any more.
    """
    found = 0
    for index, region in enumerate(regions):
        memory = Memory(region.title, region.view, "Resume again when it can be touched")
        done = 0  # blocks
        for start, stop in populated(memory.address, memory.nbytes):
            first, done = max(start // BLOCK, done), block_count(stop)
            found += hashes.learn(index, memory, first, done)
    return found * BLOCK


def _target(layout: Layout, regions: dict[str, Region]) -> Target:
    return Target.of(layout, regions[layout.name].view if layout.nbytes else memoryview(b""))


def _check_names(store: Store, node: Node, layouts: list[Layout]) -> None:
    theirs, ours = groups_of(node.layouts), groups_of(layouts)
    missing, strange = sorted(set(theirs) - set(ours)), sorted(set(ours) - set(theirs))
    if missing or strange:
        raise ChainError(
            f"the chain in {store.place} has other regions: "
            + "; ".join(
                [f"memory is missing for {first_few_of(map(repr, missing))}"] * bool(missing)
                + [f"it has no {first_few_of(map(repr, strange))}"] * bool(strange)
            )
            + ". Resume with all its regions and no others"
        )
    for name, group in theirs.items():
        if group != ours[name]:
            raise ChainError(
                f"the chain in {store.place} has one memory for {_listed(group)}, and was given one for "
                f"{_listed(ours[name])}. Resume with the same memory under the same names"
            )


def _listed(names: frozenset[str]) -> str:
    return first_few_of(map(repr, sorted(names)))
