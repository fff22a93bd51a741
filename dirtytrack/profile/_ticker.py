"""A thread that does something every so many seconds."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from dirtytrack._lifetime.background import Background
from dirtytrack.errors import DirtyTrackError


class Ticker:
    """Calls a function every so many seconds, in a thread of its own, until it is stopped.

    When the function raises an error of the library it is called no more: whoever calls it himself next hears
    of it.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._stop: SimpleQueue[None] = SimpleQueue()
        self._thread = Background("dirtytrack profile")

    def start(self, seconds: float) -> None:
        """Begins."""
        self._thread.start()
        self._thread.put(functools.partial(self._run, seconds))

    def stop(self) -> None:
        """Has the thread end, and waits until it has; idempotent, also where a start was interrupted."""
        self._stop.put(None)
        if not self._thread.is_current:
            self._thread.stop()

    def _run(self, seconds: float) -> None:
        with suppress(DirtyTrackError):
            while True:
                try:
                    self._stop.get(timeout=seconds)
                    return
                except Empty:
                    self._call()
