"""Making a group short, where no run is going on: parts become bases, and older states are removed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dirtytrack.checkpoint import Chain, compact
from dirtytrack.checkpoint.records import (
    Candidate,
    CompressionName,
    Keep,
    LockName,
    Options,
    Root,
    StoreOptions,
)
from dirtytrack.errors import ChainError
from dirtytrack.group.garbage import collect
from dirtytrack.group.record import Part, Record
from dirtytrack.group.records import Records
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
    keep: int | Keep = 1,
    *,
    compression: CompressionName = "auto",
    fsync: bool = True,
    lock: LockName = "record",
    progress: Callable[[int, int], None] | None = None,
    store_options: StoreOptions | None = None,
    grace_period: float | None = None,
) -> CompactedGroup:
    """Does without older states of a group, and makes bases of the parts that the others stand on.

    A run that is going on in a directory has its chains, so this is refused. One in an object store is
    overtaken by this: its processes get a BusyError.

    Args:
        path: of the group; where there is a *mirror*, that.
        keep: how many states stay, at least 1; or a `Keep`.
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
    newest = records.newest()
    states = records.states(newest)
    if newest is None or not states:
        raise ChainError(f"{root.place} holds no state of a group")
    wanted = newest.retaining(options.policy, states)
    states = [state for state in states if wanted.stays(state.number)]
    for run in sorted({newest.run, *(state.run for state in states)}):  # the newest may have saved nothing
        root.check_unclaimed(f"parts/{run}", lock)
    needed = _needed(states)
    chosen = {folder: _choose(root, folder, parts, wanted.oldest) for folder, parts in needed.items()}
    before = root.usage("parts")
    # First: what is removed next is nobody's state then, whatever ends this.
    records.open([], keep=options.policy)
    for folder, policy in chosen.items():
        compact(
            root.below(folder),
            policy,
            compression=compression,
            fsync=fsync,
            lock=lock,
            retain=[part.id for part in needed[folder].values()],  # also where a gap lies between them
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


@dataclass(frozen=True)
class _Chosen(Keep):
    # Of a chain the newest checkpoints, and those of some numbers.
    numbers: frozenset[int] = frozenset()

    def chosen(self, _records: Sequence[Candidate]) -> set[int]:
        return {*self.numbers}


def _needed(states: list[Record]) -> dict[str, dict[int, Part]]:
    # What the states have of each chain, by their numbers, ascending.
    needed: dict[str, dict[int, Part]] = {}
    for state in states:
        for part in state.parts:
            needed.setdefault(part.folder, {})[state.number] = part
    return needed


def _choose(root: Root, folder: str, parts: dict[int, Part], oldest: int) -> Keep:
    # What stays of a chain: all from the part of the oldest state on, and those that are kept.
    place = root.below(folder)
    with Chain(place, store_options=root.options) as chain:
        ids = [one.id for one in chain.checkpoints]
    if missing := {part.id for part in parts.values()} - {*ids}:
        raise ChainError(f"{place} has no checkpoint {min(missing)}, which a state needs: verify the group")
    first = min((number for number in parts if number >= oldest), default=max(parts))
    kept = frozenset(part.number for number, part in parts.items() if number < first)
    return _Chosen(len(ids) - ids.index(parts[first].id), numbers=kept)
