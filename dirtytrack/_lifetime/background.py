"""A thread for what is to happen behind a call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Background:
    """Does what it is given, in order, in a thread of its own, whatever goes wrong with it.

    An interrupt of the caller does no harm to any of the methods, and each can be called again. So they wait
    by a SimpleQueue: Event, Condition and Thread.join of Python 3.11 keep a lock, or take the thread for
    ended, when an exception strikes at the wrong place in them.

    Attributes:
        failure: the first exception that was let through by what it did.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self.failure: BaseException | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, act: Callable[[], object]) -> None:
        """Has it done."""
        self._queue.put(act)

    def drain(self) -> None:
        """Waits until all that was put before is done."""
        if not self._is_stopped:
            done: SimpleQueue[None] = SimpleQueue()
            self._queue.put(lambda: done.put(None))
            done.get()

    def stop(self) -> None:
        """Waits as `drain` does, and ends the thread."""
        self.drain()
        self._is_stopped = True
        self._queue.put(lambda: None)
        self._thread.join()

    @property
    def is_current(self) -> bool:
        """Whether this is called in it."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        while not self._is_stopped:
            try:
                self._queue.get()()
            except BaseException as error:
                self.failure = self.failure or error
