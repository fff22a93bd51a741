"""A thread that does something every so many seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from dirtytrack.errors import DirtyTrackError


class Ticker:
    """Calls a function every so many seconds, in a thread of its own, until it is stopped.

    When the function raises an error of the library it is called no more: whoever calls it himself next hears
    of it.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._stop: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, seconds: float) -> None:
        """Begins."""
        self._thread = threading.Thread(
            target=self._run, args=(seconds,), name="dirtytrack profile", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Has the thread end, and waits until it has; idempotent."""
        self._stop.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None

    def _run(self, seconds: float) -> None:
        with suppress(DirtyTrackError):
            while True:
                try:
                    self._stop.get(timeout=seconds)
                    return
                except Empty:
                    self._call()
