"""Where a writer begins: with a new chain, or at a checkpoint that it restores."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from dirtytrack.checkpoint.format.layout import Layout, groups_of, stored
from dirtytrack.checkpoint.format.structures import (
    BLOCK,
    MAX_NUMBER,
    NO_PARENT,
    FileName,
    block_count,
)
from dirtytrack.checkpoint.read.archive import opened
from dirtytrack.checkpoint.read.filling import Target, fill
from dirtytrack.checkpoint.read.lineage import Node, first_few_of
from dirtytrack.checkpoint.read.populated import populated
from dirtytrack.checkpoint.store.protocol import GROUP_FOLDERS, Store
from dirtytrack.checkpoint.write.table import Table, fits, in_order_of, new_table_name
from dirtytrack.errors import ChainError
from dirtytrack.kernel.touch import Memory
from dirtytrack.tracking import Region

_MAX_FIRST_NUMBER = MAX_NUMBER // 2


class Origin(NamedTuple):
    """Where a writer begins.

    Attributes:
        chain: identifier of the chain.
        parent: the checkpoint that is gone on with, or NO_PARENT.
        layouts: the table of regions; of a checkpoint that is gone on with its own.
        table: its name.
        regions: the memory of its stored regions, by name, as far as it holds what they have there.
        meta: of that checkpoint, as JSON text; of a new chain null.
        next_number: greater than any in the directory, of whatever file.
        numbers: the checkpoints that lead there, oldest first.
        files: what a delta to it stands on: a base, and deltas in order; none: a base has to come next.
    """

    chain: bytes
    parent: bytes
    layouts: Sequence[Layout]
    table: str
    regions: Mapping[str, Region]
    meta: str
    next_number: int
    numbers: list[int]
    files: tuple[FileName, ...]


def start(store: Store, layouts: list[Layout], regions: dict[str, Region]) -> Origin:
    """A new chain in a directory that holds none.

    Raises:
        FileExistsError: it holds one, or a group of processes has its own below it.
    """
    if _has_chain(store):
        raise FileExistsError(
            errno.EEXIST,
            "there is a chain already: resume() it, open() it, or choose another path",
            store.place,
        )
    if store.has_folders(GROUP_FOLDERS):
        raise FileExistsError(
            errno.EEXIST,
            "a group of processes has saved there: GroupCheckpointer.open() it, or choose another path",
            store.place,
        )
    chain, name = secrets.token_bytes(16), new_table_name()
    return Origin(chain, NO_PARENT, layouts, name, regions, "null", 1, [], ())


def resume(
    store: Store,
    layouts: list[Layout],
    regions: dict[str, Region],
    at: int | str | None = None,
    *,
    strict: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Origin:
    """Restores a checkpoint into the regions.

    Without *strict* into those that it has; what it has beside them is left out from here on.

    Raises:
        ChainError: it can't be restored, or the regions are not those of the chain.
    """
    with opened(store, newest=True) as archive:
        node = archive.newest if at is None else archive.find(at)
        wanted = layouts if strict else _common(store, node, layouts)
        if strict:
            _check_names(store, node, layouts)
        node = fill(archive, [_target(layout, regions) for layout in wanted], at, progress)
        number = archive.greatest_number + 1
        if number > _MAX_FIRST_NUMBER:
            raise ChainError(
                f"a file in {store.place} claims to be checkpoint {number - 1}, "
                "which leaves none: move it away"
            )
        groups = groups_of(node.layouts)
        restored = {layout.name: regions[layout.name] for layout in wanted if layout.nbytes}
        return Origin(
            node.file.header.chain,
            node.file.header.checkpoint,
            in_order_of(node.layouts, layouts) if fits(node.layouts, layouts) else node.layouts,
            node.file.description.table,
            {other: region for name, region in reversed(restored.items()) for other in groups[name]},
            node.file.description.meta,
            number,
            [one.number for one in archive.lineage(node)],
            tuple(file.name for file in node.files()),
        )


def start_or_resume(
    store: Store,
    layouts: list[Layout],
    regions: dict[str, Region],
    *,
    strict: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Origin:
    """Resumes a chain if there is a file of one, else starts it."""
    if _has_chain(store):
        return resume(store, layouts, regions, strict=strict, progress=progress)
    return start(store, layouts, regions)


def _has_chain(store: Store) -> bool:
    names = store.newest_names()
    return bool(FileName.among(store.names() if names is None else names))


def learn(regions: Mapping[str, Region], table: Table) -> int:
    """Hashes what memory holds, which is committed; memory without a page is zeros, and stays without one.

    Args:
        regions: the memory of the stored regions, by name, as far as it holds what is committed.
        table: of the regions.

    Returns:
        How many bytes hold something: blocks that are not zeros.

    Raises:
        KernelError: some of it can't be read any more.
    """
    found = 0
    for index, layout in enumerate(stored(table.layouts)):
        region = regions.get(layout.name)
        if region is None:
            continue
        memory = Memory(region.title, region.view, "Resume again when it can be touched")
        done = 0  # blocks
        for start, stop in populated(memory.address, memory.nbytes):
            first, done = max(start // BLOCK, done), block_count(stop)
            found += table.hashes.learn(index, memory, first, done)
    return found * BLOCK


def _target(layout: Layout, regions: dict[str, Region]) -> Target:
    return Target.of(layout, regions[layout.name].view if layout.nbytes else memoryview(b""))


def _common(store: Store, node: Node, layouts: list[Layout]) -> list[Layout]:
    theirs = {layout.name for layout in node.layouts}
    common = [layout for layout in layouts if layout.name in theirs]
    if not common:
        raise ChainError(
            f"the chain in {store.place} has none of the regions: it has {first_few_of(sorted(theirs))}"
        )
    return common


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
            + ". Resume with all its regions and no others, or with strict=False"
        )
    for name, group in theirs.items():
        if group != ours[name]:
            raise ChainError(
                f"the chain in {store.place} has one memory for {_listed(group)}, and was given one for "
                f"{_listed(ours[name])}. Resume with the same memory under the same names"
            )


def _listed(names: frozenset[str]) -> str:
    return first_few_of(map(repr, sorted(names)))
