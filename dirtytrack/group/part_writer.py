"""The chain that a process of a group writes in a run: it goes on with a part of a state, or begins anew."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

from dirtytrack.checkpoint import Checkpointer, Save
from dirtytrack.errors import CheckpointError
from dirtytrack.group.record import Part, Record
from dirtytrack.group.records import Records
from dirtytrack.group.restoring import find_state, restore_parts
from dirtytrack.group.settings import Settings

_MOST_FOLLOWED = 100  # saves that a mirror is to have one by one; one that is further behind leaves some out
_MOST_COPIED = 3  # bytes in an object store for one that is this process's, of a part that is not all its own
_ATTEMPTS = 3  # of a save, where earlier ones turn out to have failed


class PartWriter:
    """One process's chain in one run, with what a group asks of it.

    Attributes:
        run: that it belongs to.
        names: of the regions that it saves.
        first: the state that the process's memory was restored from; None: there was none.
    """

    def __init__(self, settings: Settings, records: Records, run: Record, state: int, folder: str) -> None:
        """Restores a state, and is ready for the first save.

        Args:
            settings: of the process.
            records: of the group.
            run: that the process belongs to.
            state: number of the state; 0: there is none.
            folder: of the chain, below the group's place; nobody else's.

        Raises:
            ChainError: the state can't be restored.
            Others: as `Checkpointer`.
        """
        self.run = run
        self._settings, self._folder = settings, folder
        self.names = tuple(sorted(settings.regions))
        self.first = find_state(settings.root, records, state)
        self._checkpoints = self._go_on() or self._begin()
        settings.forget_older(run.run)

    def _go_on(self) -> Checkpointer | None:
        # Who has at least half of its memory from one part writes no base, but only what that part has not.
        sizes = self._settings.sizes()

        def common(part: Part) -> int:
            return sum(sizes.get(name, 0) for name in part.names)

        part = max(() if self.first is None else self.first.parts, key=common, default=None)
        if self.first is None or part is None or 2 * common(part) < max(1, sum(sizes.values())):
            return None
        is_whole = sizes.keys() >= {*part.names}
        limit = None if is_whole or not self._settings.root.is_remote else _MOST_COPIED * common(part)
        if not self._settings.branch(part.folder, part.id, self._folder, limit):
            return None
        self._restore(self.first, {*sizes} - {*part.names})
        return self._settings.resume_chain(self._folder, part.id)

    def _begin(self) -> Checkpointer:
        if self.first is not None:
            self._restore(self.first, {*self.names})
        return self._settings.start_chain(self._folder)

    def _restore(self, state: Record, names: set[str]) -> None:
        regions = {name: self._settings.regions[name] for name in names}
        restore_parts(self._settings.root, state, regions)

    def capture(self, meta: Any, pause: AbstractContextManager[object] | None) -> Save:
        """Captures the process's part of a state.

        Raises:
            As `Checkpointer.save`.
        """
        for left in reversed(range(_ATTEMPTS)):
            try:
                return self._checkpoints.save(meta, pause=pause)
            except CheckpointError:  # mostly an earlier one's, and this one was not begun
                if not left:
                    raise
        raise AssertionError("unreachable")

    def bind(self, regions: Mapping[str, object]) -> None:
        """Has the saves from here on be of these regions.

        Raises:
            As `Checkpointer.bind`.
        """
        self._checkpoints.bind(regions)
        self.names = tuple(sorted(regions))

    def retain(self, committed: Mapping[int, str], newest: Record, undecided: Sequence[str]) -> None:
        """Has these checkpoints stay: `keep` of the chain does not know what others have or may commit.

        A mirror is to have each of those that are not decided, too: if each process's left out some, there
        might be no state that all have.

        Args:
            committed: identifiers by the numbers of their states, ascending.
            newest: the record that says which of them are kept for their own sake.
            undecided: identifiers in order.
        """
        window = [*(one for number, one in committed.items() if number >= newest.oldest), *undecided]
        followed = undecided[-_MOST_FOLLOWED:] if len(undecided) > _MOST_FOLLOWED else window
        self._checkpoints.retain([*committed.values(), *undecided], since=followed[0] if followed else None)

    def is_durable(self, part: Save) -> bool:
        """Whether it is where the others can read it.

        Raises:
            As `Settings.is_durable`.
        """
        return self._settings.is_durable(self._checkpoints, part)

    def make_durable(self, part: Save) -> None:
        """Waits until it is where the others can read it.

        Raises:
            CheckpointError: it never will be.
            TimeoutError: the mirror made no progress for *mirror_timeout*.
            BusyError: another writer has committed to the mirror.
        """
        part.wait()
        if self._settings.mirror is not None:
            self._checkpoints.flush()
        if not self.is_durable(part):
            told = "the mirror does not have this checkpoint: another writer has committed to it"
            raise CheckpointError(errno.EBUSY, told, self._settings.place, (part.number,))

    def as_part(self, part: Save) -> Part:
        """As records name it."""
        return Part(self._folder, part.id, part.number, self.names)

    def is_own(self, part: Part) -> bool:
        """Whether it is of this chain."""
        return part.folder == self._folder

    def close(self) -> None:
        """Ends it.

        Raises:
            As `Checkpointer.close`.
        """
        self._checkpoints.close()

    def give_up(self) -> None:
        """Ends it, whatever becomes of what was saved."""
        with suppress(OSError):
            self._checkpoints.close()
