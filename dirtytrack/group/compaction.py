"""Making a group short, where no run is going on: parts become bases, and older states are removed."""

from __future__ import annotations

import os
from collections.abc import Callable

from dirtytrack.checkpoint import Chain, compact
from dirtytrack.checkpoint.records import CompressionName, LockName, Options, Root, StoreOptions
from dirtytrack.errors import ChainError
from dirtytrack.group.garbage import collect
from dirtytrack.group.records import Records
from dirtytrack.group.settings import grace_of


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
) -> int:
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
        The number of the oldest state that stays.

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
    if newest is not None:  # of a run that has saved nothing yet no state tells
        root.check_unclaimed(f"parts/{newest.run}", lock)
    wanted: dict[str, set[str]] = {}
    for state in states:
        for part in state.parts:
            wanted.setdefault(part.folder, set()).add(part.id)
    for folder, identifiers in wanted.items():
        place = root.below(folder)
        with Chain(place, store_options=root.options) as chain:
            ids = [one.id for one in chain.checkpoints]
        if missing := identifiers - {*ids}:
            raise ChainError(
                f"{place} has no checkpoint {min(missing)}, which a state needs: verify the group"
            )
        oldest = min(map(ids.index, identifiers))
        compact(
            place,
            len(ids) - oldest,
            compression=compression,
            fsync=fsync,
            lock=lock,
            progress=progress,
            store_options=root.options,
            grace_period=grace_period,
        )
    records.open([], keep=keep)
    collect(records, grace_of(root, options))
    return states[0].number
