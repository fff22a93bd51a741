"""Cleaning up, whatever interrupts it."""

from __future__ import annotations

import functools
from collections.abc import Callable

_TRIES = 100  # of an act that is interrupted each time


class Undo:
    """Acts that are to be done in the end, the last one first.

    Say what is to be undone *before* doing it: an interrupt may come between an act and a note of it, and may
    take away what the act returned. So an act of undoing goes by something that exists before, it can be done
    again, and it does nothing where nothing was done. An interrupted `close` can then be repeated: it does
    everything anew, where an ExitStack has forgotten what it was about to do.
    """

    def __init__(self) -> None:
        self._acts: list[Callable[[], object]] = []

    def callback(self, act: Callable[..., object], /, *args: object) -> None:
        """Adds an act, which is to be done before those added so far."""
        self._acts.append(functools.partial(act, *args))

    def close(self) -> None:
        """Does every act, and forgets them. If one fails, none is forgotten; the first failure is raised.

        An act that an interrupt has ended is done again at once, and the interrupt is raised afterwards.
        """
        failure: BaseException | None = None
        done = True
        try:
            for act in reversed(self._acts):
                for _ in range(_TRIES):
                    try:
                        act()
                        break
                    except Exception as error:
                        failure, done = failure or error, False
                        break
                    except BaseException as error:
                        failure = failure or error
                else:
                    done = False
            if done:
                self._acts.clear()
            if failure is not None:
                raise failure
        finally:
            failure = None  # its traceback has this frame: a circle would keep what the acts name
