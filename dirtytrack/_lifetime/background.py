"""A thread for what happens behind a call."""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from dirtytrack.native import ffi, lib

_START_SECONDS = 10.0  # after which a thread that has not begun is taken for one that can't


class _Thread(threading.Thread):
    """A thread of the library's own, known by this."""


def others_run() -> bool:
    """Whether Python threads run beside this one that are not the library's own."""
    mine = threading.current_thread()
    return any(thread is not mine and not isinstance(thread, _Thread) for thread in threading.enumerate())


def is_own_thread() -> bool:
    """Whether the caller runs in a thread of the library's own, where garbage may be collected, too."""
    return isinstance(threading.current_thread(), _Thread)


def _let_others_go_first() -> None:
    # Where there are not enough processors, who has woken this thread goes on: a save returns before what it
    # has captured is written.
    with suppress(OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Background:
    """A thread that does what it is given, in order, whatever goes wrong with it.

    Any method may be interrupted, and called again. So they wait by a SimpleQueue, which is C: an exception
    in the wrong place leaves a Condition, and so an Event, locked for ever, and makes Thread.join take a
    thread that runs for one that has ended. An interrupt can take away what was got from the queue; that is
    only a sign here, and nothing is lost with it. The thread itself waits in native code, at a mailbox, so
    that what it is given can begin before it gets the GIL.

    What it does is never interrupted: Python runs the handlers of signals in the main thread alone.

    Attributes:
        failure: the first exception that an act let through. The acts after it are done all the same.
        given: how many acts were put, counted before each is.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._mailbox: Any = ffi.new("struct dt_mailbox *")
        self.failure: BaseException | None = None
        self.given = 0
        self._errand: object = None
        self._is_wanted = self._is_started = self._is_stopped = False
        self._starting = threading.Lock()  # held until the thread runs, or can't
        self._starting.acquire()
        self._thread = _Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread. See to it first that somebody calls `stop`: an interrupt may tear this.

        Raises:
            RuntimeError: there can be no more threads.
        """
        # Thread.start waits by a Condition: so it is called where no handler runs.
        self._is_wanted = True
        try:
            _thread.start_new_thread(self._start, ())
        except RuntimeError:
            self._is_wanted = False
            raise
        self._wait_for_start()
        if not self._is_started:
            self._is_wanted = False
            raise RuntimeError(
                "there can be no more threads: close some, or raise RLIMIT_NPROC (ulimit -u) or RLIMIT_AS "
                "(ulimit -v)"
            )

    @property
    def is_idle(self) -> bool:
        """Whether all that was put is done, and the thread waits for more."""
        return self._queue.empty() and bool(lib.dt_mailbox_is_waited_at(self._mailbox))

    def put(self, act: Callable[[], object], errand: Any = ffi.NULL) -> None:
        """Adds an act to what is to be done. Does not wait.

        Args:
            act: is called by the thread.
            errand: a ``struct dt_errand`` that lives as long as the act, which sees to it that it is done or
                revoked. A thread that is idle does it before it has the GIL.
        """
        self.given += 1
        self._queue.put(act)
        if lib.dt_mailbox_post(self._mailbox, errand):  # which may be looked at when the act is over already
            self._errand = (act, errand) if errand else None

    def drain(self) -> None:
        """Waits until everything that was put before is done."""
        if self._is_started and not self._is_stopped:
            done: SimpleQueue[None] = SimpleQueue()
            self.put(lambda: done.put(None))
            done.get()

    def stop(self) -> None:
        """Waits as `drain` does, and ends the thread: what is put later is not done.

        It can be repeated, also where nothing was started, or an interrupt has torn that.
        """
        if self._is_wanted:
            self._wait_for_start()
        self.drain()
        self._is_stopped = True
        self.put(lambda: None)  # wakes it, so that it sees that
        if self._is_started:
            self._thread.join()  # an interrupt may end this too early: there is nothing left to do

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in this thread, and so must not wait for it."""
        return threading.current_thread() is self._thread

    def _start(self) -> None:
        try:
            self._thread.start()
            self._is_started = True
        except RuntimeError:
            pass
        finally:
            self._starting.release()

    def _wait_for_start(self) -> None:
        # A thread for which there is no memory may end before its first line of Python, and tell nobody.
        if not self._is_started and self._starting.acquire(timeout=_START_SECONDS):
            self._starting.release()

    def _run(self) -> None:
        lib.dt_own_thread()
        _let_others_go_first()
        while not self._is_stopped:
            lib.dt_mailbox_wait(self._mailbox)
            self._do_all()

    def _do_all(self) -> None:
        while not self._is_stopped:
            try:
                act = self._queue.get_nowait()
            except Empty:
                return
            try:
                act()
            except BaseException as error:
                self.failure = self.failure or error
            del act  # and what it keeps
