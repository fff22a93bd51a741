"""From a state of a group to memory: whichever process wrote a part, and whichever one has it now."""

from __future__ import annotations

from collections.abc import Mapping

from dirtytrack.checkpoint import restore
from dirtytrack.checkpoint.records import Root
from dirtytrack.errors import ChainError
from dirtytrack.group.records import Record, Records


def restore_parts(root: Root, records: Records, number: int, regions: Mapping[str, object]) -> Record | None:
    """Restores those regions that a state has, and returns the state; None if the number is 0.

    Raises:
        ChainError: the state is not there, can't be read, or memory does not fit.
        Others: as for `restore`.
    """
    if not number:
        return None
    state = records.find(number)
    if state is None or state.kind != "committed":
        raise ChainError(f"{root.place} has no state {number}, with which the group was opened")
    for part in state.parts:
        into = {name: regions[name] for name in part.names if name in regions}
        if into:
            restore(root.below(part.folder), into=into, at=part.id, store_options=root.options)
    return state
