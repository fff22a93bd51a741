"""What a save of a group did, as its caller in one process sees it."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from dirtytrack.checkpoint import Save
from dirtytrack.errors import CheckpointError
from dirtytrack.group.voter import Job, SaveState, Voter


class GroupSave:
    """One save of a group. It is made by `GroupCheckpointer.save`, and read-only.

    The process's part is captured when its caller gets it. The state is committed for all processes or for
    none, some time later; `wait` waits for that.
    """

    __slots__ = ("_job", "_place", "_voter")

    def __init__(self, job: Job, voter: Voter, place: str) -> None:
        self._job, self._voter, self._place = job, voter, place

    @property
    def number(self) -> int:
        """The number of the state, if it is committed; grows along the group."""
        return self._job.number

    @property
    def part(self) -> Save | None:
        """This process's own part, with its figures; None if it could not be captured."""
        return self._job.part

    @property
    def meta(self) -> Any:
        """The meta that was given, as JSON has it; a new copy at each access."""
        return json.loads(self._job.meta)

    @property
    def state(self) -> SaveState:
        """Which of "captured", "committed", "aborted", "overtaken" and "abandoned" it is, as far as is known.

        "aborted": a process could not save, or they did not agree. "overtaken": another run has opened the
        group. "abandoned": this process closed before it was decided, so it may be committed or not.
        """
        return self._job.state

    @property
    def done(self) -> bool:
        """Whether it is known what becomes of it."""
        return self.state != "captured"

    def wait(self, timeout: float | None = None) -> None:
        """Waits until it is committed by all processes.

        Args:
            timeout: seconds; None, the default: as long as it takes. If a process has died, that is for ever.

        Raises:
            CheckpointError: it is not, since a process could not save, or they did not agree: it says which
                one, and why. The pages are in the next save.
            BusyError: another run has opened the group.
            TimeoutError: it is not known yet, and may be committed later.
            RuntimeError: called by a callback, or by the handler of a signal in the middle of a save, of a
                save that is not done.
            ForkedError: called in a child of the process that saves.
        """
        self._voter.wait_for(self._job, timeout)
        if self.state == "overtaken":
            self._voter.raise_overtaken()
        if self.state == "abandoned":
            told = f"save {self.number} of the group was not decided when this process closed"
            raise TimeoutError(errno.ETIMEDOUT, told, self._place)
        if self.state == "aborted":
            self._job.is_told = True
            raise CheckpointError(
                errno.ECANCELED,
                f"save {self.number} of the group was not committed: {self._job.cause}. Its "
                "pages are in the next save",
                self._place,
                (self.number,),
            )

    def add_done_callback(self, callback: Callable[[GroupSave], object]) -> None:
        """Calls a function with this save as soon as it is known what becomes of it.

        The thread that votes calls it, or if the save is done, this call does. It must not take long, and
        can't call the `GroupCheckpointer`. If it raises, that is logged by the log ``dirtytrack.group``.
        """
        if not callable(callback):
            raise TypeError(f"a callback is a function of one argument, the save, not {callback!r}")
        self._job.when_done(partial(callback, self))

    def __repr__(self) -> str:
        return f"<GroupSave: {self.number}, {self.state}>"
