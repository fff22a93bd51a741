"""Tasks done by several threads, none of which an interrupt leaves behind.

A restore fills memory that belongs to its caller, with the help of other threads. Once it has returned or
raised, nobody may write to that memory any more, whatever ended it. An Executor can't promise that: Ctrl-C
raises a KeyboardInterrupt in the main thread between any two bytecodes, also within ``Thread.join``,
``Condition.wait`` and the end of an executor's block, and Python 3.11 then takes a thread for ended that is
not, or keeps a lock for ever. So here

- a helper is started by one C call, and begins by taking a lock of its own, which it keeps until it has no
  more tasks. To wait for it is to take that lock: ``with lock`` is the one wait that an interrupt can't tear,
  since it has the lock, and gives it back, or it has not;
- a task is taken from a deque by one C call, so by one thread or by none; and to stop everybody is to empty
  the deque. A helper that only begins after that, even after the wait for it, finds no task;
- who is interrupted while waiting begins to wait anew, and the interrupt goes on when all helpers have ended.
  The wait stands twice, one within the other: an interrupt may strike when the first was called and before it
  has begun, and then the second does it.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

Task = Callable[[], object]

_THREADS = min(4, len(os.sched_getaffinity(0)))
_TASKS_PER_THREAD = 4  # fewer are done sooner than a thread is started


def run_all(tasks: Iterable[Task], *, threads: int = 0) -> None:
    """Does all tasks, beginning them in order, with the help of other threads where there are enough of them.

    Whether it returns or raises, no task is under way any more. Where no thread can be started, it does them
    all by itself. It may be called in the middle of itself, by the handler of a signal.

    Args:
        tasks: to be done.
        threads: how many at most, for tasks that wait for somebody else. Default: as many as there are
            processors for, up to 4, if each has several tasks.

    Raises:
        Exception: of the first task that failed; no task was begun after it.
        KeyboardInterrupt: no task was begun after it.
    """
    left = deque(tasks)
    failures: list[Exception] = []

    def work(busy: threading.Lock) -> None:
        with busy:
            try:
                while True:
                    try:
                        task = left.popleft()
                    except IndexError:
                        return
                    task()
            except Exception as error:
                left.clear()
                failures.append(error)

    most = min(threads, len(left)) if threads else min(_THREADS, len(left) // _TASKS_PER_THREAD)
    helpers = [threading.Lock() for _ in range(1, most)]
    try:
        try:
            with suppress(RuntimeError):  # there may be no more threads
                for busy in helpers:
                    _thread.start_new_thread(work, (busy,))
            work(threading.Lock())
        finally:
            _end(left, helpers)
    finally:
        _end(left, helpers)
    if failures:
        raise failures[0]


def _end(left: deque[Task], helpers: list[threading.Lock]) -> None:
    # Lets nobody begin a task, and waits for those that are under way.
    try:
        left.clear()
        for busy in helpers:
            with busy:
                pass
    except BaseException:
        _end(left, helpers)
        raise
