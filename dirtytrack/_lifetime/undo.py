"""Cleaning up, whatever interrupts it."""

from __future__ import annotations

import functools
from collections.abc import Callable


class Undo:
    """What is to be done in the end, the last first. Each act of it can be done again.

    So an interrupted `close` can be repeated: it does everything anew, where an ExitStack has forgotten what
    it was about to do.
    """

    def __init__(self) -> None:
        self._acts: list[Callable[[], object]] = []

    def callback(self, act: Callable[..., object], /, *args: object) -> None:
        """Adds to it."""
        self._acts.append(functools.partial(act, *args))

    def close(self) -> None:
        """Does all of it, and raises what went wrong first."""
        failure: BaseException | None = None
        for act in reversed(self._acts):
            try:
                act()
            except BaseException as error:
                failure = failure or error
        if failure is not None:
            raise failure
        self._acts.clear()
