"""When to save: every so many steps or seconds, and once more when the process is asked to end."""

from __future__ import annotations

import os
import signal
import time
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any, Protocol

from dirtytrack.checkpoint.save import Save


class _Saves(Protocol):
    @property
    def closed(self) -> bool: ...

    def save(
        self, meta: Any = None, *, wait: bool = False, pause: AbstractContextManager[object] | None = None
    ) -> Save: ...


class Schedule:
    """Call it once a step: it saves when that is due. Made by ``save_every`` of a checkpointer."""

    def __init__(self, checkpoints: _Saves, steps: int | None, seconds: float | None, sigterm: bool) -> None:
        """Begins to count, and if *sigterm* is True takes over that signal.

        Raises:
            TypeError, ValueError: of the arguments; or the signal can't be taken over, since this is not the
                main thread.
        """
        if steps is None and seconds is None and not sigterm:
            raise ValueError("say how often: steps=, seconds=, or sigterm=True")
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
            raise ValueError(f"steps={steps!r}: a whole number, at least 1")
        if seconds is not None and not (isinstance(seconds, int | float) and seconds >= 0):
            raise ValueError(f"seconds={seconds!r}: a number, at least 0")
        self._checkpoints = checkpoints
        self._steps, self._seconds = steps, seconds
        self._count, self._last = 0, time.monotonic()
        self._is_asked = False
        if sigterm:
            self._before = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, self._ask)

    @property
    def due(self) -> bool:
        """Whether the next call saves."""
        by_steps = self._steps is not None and self._count + 1 >= self._steps
        by_time = self._seconds is not None and time.monotonic() - self._last >= self._seconds
        return by_steps or by_time or self._is_asked

    def __call__(
        self, meta: Any = None, *, wait: bool = False, pause: AbstractContextManager[object] | None = None
    ) -> Save | None:
        """Saves if that is due; returns the save, or None.

        Args:
            meta: as for ``save``.
            wait: the same.
            pause: the same.

        Raises:
            SystemExit: with 143, when SIGTERM has come: the save is committed.
            Others: as for ``save``.
        """
        if not self.due:
            self._count += 1
            return None
        save = self._checkpoints.save(meta, wait=wait or self._is_asked, pause=pause)
        self._count, self._last = 0, time.monotonic()
        if self._is_asked:
            signal.signal(signal.SIGTERM, self._before)
            raise SystemExit(128 + signal.SIGTERM)
        return save

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if not self._checkpoints.closed:
            self._is_asked = True
        else:  # it is nobody's business here any more
            signal.signal(number, self._before)
            os.kill(os.getpid(), number)
