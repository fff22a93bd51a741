"""Where a writer begins: with a new chain, or at a checkpoint that it restores."""

from __future__ import annotations

import errno
import json
import secrets
from dataclasses import replace
from typing import Any, NamedTuple

from dirtytrack._lifetime.undo import Undo
from dirtytrack.checkpoint.chain import Chain, Checkpoint
from dirtytrack.checkpoint.format.layout import Layout
from dirtytrack.checkpoint.format.structures import MAX_DESCRIPTION, MAX_NUMBER, NO_PARENT
from dirtytrack.checkpoint.restore import Target, fill
from dirtytrack.checkpoint.store.directory import Directory
from dirtytrack.errors import ChainError
from dirtytrack.tracking import Region, Session, resolve, track_many

_MAX_FIRST_NUMBER = MAX_NUMBER // 2
_MAX_TABLE = MAX_DESCRIPTION // 2 - 4096  # the other half is for the meta


class Origin(NamedTuple):
    """Where a writer begins.

    Attributes:
        chain: identifier of the chain.
        parent: the checkpoint that memory holds, or NO_PARENT.
        layouts: the table of regions.
        meta: of that checkpoint.
        next_number: greater than any in the directory, of whatever file.
        numbers: the checkpoints that lead there, oldest first.
    """

    chain: bytes
    parent: bytes
    layouts: tuple[Layout, ...]
    meta: Any
    next_number: int
    numbers: list[int]


def track(
    memories: dict[str, object], session: Session | None, undo: Undo
) -> tuple[Session, dict[str, Region], list[Layout]]:
    """Tracks the memory; *undo* ends that.

    Raises:
        ValueError: it takes too long a description. Others: as `Session.track`.
    """
    session, regions = track_many(memories, session, undo)
    layouts = [Layout.of(name, resolve(memories[name]), one.page_size) for name, one in regions.items()]
    length = len(json.dumps([layout.to_json() for layout in layouts]))
    if length > _MAX_TABLE:
        raise ValueError(
            f"names and element types take {length} bytes in each file: at most {_MAX_TABLE}; give bytes"
        )
    return session, regions, layouts


def start(directory: Directory, layouts: list[Layout], _regions: dict[str, Region]) -> Origin:
    """A new chain in a directory that holds none.

    Raises:
        FileExistsError: it holds one.
    """
    if directory.names():
        raise FileExistsError(
            errno.EEXIST,
            "there is a chain already: resume() it, open() it, or choose another path",
            str(directory.path),
        )
    return Origin(secrets.token_bytes(16), NO_PARENT, tuple(layouts), None, 1, [])


def resume(
    directory: Directory, layouts: list[Layout], regions: dict[str, Region], at: int | str | None = None
) -> Origin:
    """Restores a checkpoint into the regions.

    Raises:
        ChainError: it can't be restored, or the regions are not those of the chain.
    """
    with Chain(directory.path) as chain:
        _check_names(directory, chain.newest if at is None else chain[at], regions)
        checkpoint = fill(chain, [Target(layout, regions[layout.name].view) for layout in layouts], at)
        number = directory.names()[-1].number + 1
        if number > _MAX_FIRST_NUMBER:
            raise ChainError(
                f"a file in {directory.path} claims to be checkpoint {number - 1}, "
                "which leaves none: move it away"
            )
        sizes = {layout.name: layout.page_size for layout in layouts}
        return Origin(
            bytes.fromhex(chain.id or ""),
            bytes.fromhex(checkpoint.id),
            tuple(replace(one, page_size=sizes[one.name], linear=None) for one in checkpoint.regions),
            checkpoint.meta,
            number,
            [one.number for one in chain._lineage(checkpoint)],
        )


def start_or_resume(directory: Directory, layouts: list[Layout], regions: dict[str, Region]) -> Origin:
    """Resumes a chain if there is a file of one, else starts it."""
    return (resume if directory.names() else start)(directory, layouts, regions)


def _check_names(directory: Directory, checkpoint: Checkpoint, regions: dict[str, Region]) -> None:
    names = {layout.name for layout in checkpoint.regions}
    missing, strange = sorted(names - set(regions)), sorted(set(regions) - names)
    if missing or strange:
        raise ChainError(
            f"the chain in {directory.path} has other regions: "
            + "; ".join(
                [f"memory is missing for {', '.join(map(repr, missing))}"] * bool(missing)
                + [f"it has no {', '.join(map(repr, strange))}"] * bool(strange)
            )
            + ". Resume with all its regions and no others"
        )
