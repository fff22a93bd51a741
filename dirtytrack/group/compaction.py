"""Making a group short, where no run is going on: parts become bases, and older states are removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from dirtytrack.checkpoint import Chain, compact
from dirtytrack.checkpoint.records import CompressionName, LockName, Options, Root, StoreOptions
from dirtytrack.errors import ChainError
from dirtytrack.group.garbage import collect
from dirtytrack.group.records import Record, Records
from dirtytrack.group.settings import grace_of


class CompactedGroup(NamedTuple):
    """What a compaction of a group did.

    Attributes:
        number: of the oldest state that stays.
        removed: the files that are gone, by their places below the group's.
        disk_bytes: what all files of parts take now; what has a name in two folders counts once.
        freed_bytes: room gained; negative if new bases take more than what was removed.
    """

    number: int
    removed: tuple[str, ...]
    disk_bytes: int
    freed_bytes: int


def compact_group(
    path: os.PathLike[str] | str,
    keep: int = 1,
    *,
    compression: CompressionName = "auto",
    fsync: bool = True,
    lock: LockName = "record",
    progress: Callable[[int, int], None] | None = None,
    store_options: StoreOptions | None = None,
    grace_period: float | None = None,
) -> CompactedGroup:
    """Does without all but the newest states of a group, and makes bases of the oldest parts that stay.

    A run that is going on in a directory has its chains, so this is refused. One in an object store is
    overtaken by this: its processes get a BusyError.

    Args:
        path: of the group; where there is a *mirror*, that.
        keep: how many states stay, at least 1.
        compression: as for `compact`.
        fsync: the same.
        lock: the same.
        progress: the same, of each chain.
        store_options: the same.
        grace_period: the same.

    Returns:
        What became of it.

    Raises:
        ChainError: there is no state, or one of those to keep can't be read.
        BusyError: a run has the group.
        OSError: as for `compact`.
        TypeError, ValueError: of the arguments.
    """
    options = Options(None, keep, compression, fsync, lock, grace_period=grace_period)
    root = Root.of(path, store_options, fsync=fsync)
    records = Records(root.bucket())
    states = records.states()[-keep:]
    if not states:
        raise ChainError(f"{root.place} holds no state of a group")
    newest = records.newest()
    runs = {state.run for state in states} | ({newest.run} if newest else set())
    for run in sorted(runs):  # the newest may have saved nothing yet
        root.check_unclaimed(f"parts/{run}", lock)
    needed = _needed(states)
    short = {folder: _how_many(root, folder, ids) for folder, ids in needed.items()}
    before = root.usage("parts")
    records.open([], keep=keep)  # first: what is removed next is nobody's state then, whatever ends this
    for folder, count in short.items():
        compact(
            root.below(folder),
            count,
            compression=compression,
            fsync=fsync,
            lock=lock,
            retain=needed[folder],  # also where a gap lies between them
            progress=progress,
            store_options=root.options,
            grace_period=grace_period,
        )
    collect(records, grace_of(root, options))
    after = root.usage("parts")
    freed = sum(before.values()) - sum(after.values())
    return CompactedGroup(
        states[0].number, (*sorted(before.keys() - after.keys()),), sum(after.values()), freed
    )


def _needed(states: list[Record]) -> dict[str, set[str]]:
    # The checkpoints of each chain that the states have.
    needed: dict[str, set[str]] = {}
    for state in states:
        for part in state.parts:
            needed.setdefault(part.folder, set()).add(part.id)
    return needed


def _how_many(root: Root, folder: str, identifiers: set[str]) -> int:
    # Checkpoints of a chain, from the oldest of those on.
    place = root.below(folder)
    with Chain(place, store_options=root.options) as chain:
        ids = [one.id for one in chain.checkpoints]
    if missing := identifiers - {*ids}:
        raise ChainError(f"{place} has no checkpoint {min(missing)}, which a state needs: verify the group")
    return len(ids) - min(map(ids.index, identifiers))
