"""From a state of a group to memory: whichever process wrote a part, and whichever one has it now."""

from __future__ import annotations

from collections.abc import Mapping

from dirtytrack.checkpoint import restore
from dirtytrack.checkpoint.records import Root
from dirtytrack.errors import ChainError
from dirtytrack.group.record import Record
from dirtytrack.group.records import Records


def find_state(root: Root, records: Records, number: int) -> Record | None:
    """The state of that number; None if it is 0.

    Raises:
        ChainError: it is not there.
    """
    if not number:
        return None
    state = records.find(number)
    if state is None or state.kind != "committed":
        raise ChainError(f"{root.place} has no state {number}, with which the group was opened")
    return state


def restore_parts(root: Root, state: Record, regions: Mapping[str, object]) -> None:
    """Restores those regions that a state has.

    Raises:
        ChainError: the state can't be read, or memory does not fit.
        Others: as for `restore`.
    """
    for part in state.parts:
        into = {name: regions[name] for name in part.names if name in regions}
        if into:
            restore(root.below(part.folder), into=into, at=part.id, store_options=root.options)
