"""Tasks done by several threads: each once, and none after the call has ended, whatever ended it."""

from __future__ import annotations

import _thread
import functools
import os
import sys
import threading
from collections.abc import Callable
from types import CodeType

import pytest

from _lib.interrupts import interrupted_at, of_the_package, traced
from dirtytrack._lifetime import interruptible_pool
from dirtytrack._lifetime.interruptible_pool import run_all

_MOST = 2000  # points


@pytest.fixture(params=[1, 2, 4])
def threads(request, monkeypatch):
    """So many threads at most, for as few tasks as there may be."""
    monkeypatch.setattr(interruptible_pool, "_THREADS", request.param)
    monkeypatch.setattr(interruptible_pool, "_TASKS_PER_THREAD", 1)
    return request.param


def test_each_task_is_done_once(threads):
    """However many there are, and begun in order."""
    for count in (0, 1, 2, 100):
        begun: list[int] = []
        run_all([functools.partial(begun.append, at) for at in range(count)])
        assert sorted(begun) == list(range(count))
        if threads == 1:
            assert begun == list(range(count))


def test_tasks_are_done_at_the_same_time(threads):
    """Each thread one of them."""
    together = threading.Barrier(threads, timeout=30)
    run_all([together.wait] * threads)


def test_tasks_that_wait_for_others_have_as_many_threads_as_are_asked_for():
    """Whatever processors there are, and a thread for each task."""
    together = threading.Barrier(6, timeout=30)
    run_all([together.wait] * 6, threads=6)
    run_all([together.wait] * 6, threads=100)


def test_tasks_do_tasks(threads):
    """As the handler of a signal does, wherever it strikes."""
    done: list[int] = []
    run_all([lambda: run_all([functools.partial(done.append, at) for at in range(9)])] * 5)
    assert sorted(done) == sorted([*range(9)] * 5)


def test_few_tasks_are_done_without_help(monkeypatch):
    """Below four for each thread."""

    def refuse(*arguments):
        raise AssertionError("started a thread")

    monkeypatch.setattr(interruptible_pool, "_THREADS", 4)
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    run_all([lambda: None] * 7)


def test_without_more_threads_it_goes_on_alone(threads, monkeypatch):
    """Where the system refuses to start one."""

    def refuse(*arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    done = []
    run_all([lambda: done.append(1)] * 20)
    assert len(done) == 20


def test_a_failure_ends_all(threads):
    """The first exception comes out when the tasks that were under way have ended; no other is begun."""
    begun, ended, failed = [], [], threading.Event()
    together = threading.Barrier(threads, timeout=30)

    def task(at):
        begun.append(at)
        if at < threads:
            together.wait()
        if at == threads - 1:
            failed.set()
            raise ValueError(at)
        failed.wait(30)
        ended.append(at)

    with pytest.raises(ValueError, match=str(threads - 1)):
        run_all([lambda at=at: task(at) for at in range(100)])
    assert len(ended) == len(begun) - 1


@traced
def test_an_interrupt_anywhere_leaves_nobody_at_work(monkeypatch):
    """At every point in turn, while a helper is in the middle of a task: it has ended when the call has."""
    monkeypatch.setattr(interruptible_pool, "_THREADS", 2)
    monkeypatch.setattr(interruptible_pool, "_TASKS_PER_THREAD", 1)
    scene = Scene(sys._getframe().f_code)
    count = 0
    for count in range(1, _MOST):
        scene.is_helper_at_work = False
        try:
            with interrupted_at(count, among=of_the_package):
                run_all([scene.work] * 2)
        except KeyboardInterrupt:
            while _thread._count() > threading.active_count() - 1:
                os.sched_yield()  # also for a helper that only begins
        else:
            break
    assert scene.escaped == 0
    assert scene.helped > 0  # on a busy machine a helper seldom gets so far
    assert 10 < count < _MOST - 1


class Scene:
    """A helper that stays in its task until the caller waits for it, and looks on what that does then.

    Attributes:
        is_helper_at_work: whether it is in its task.
        helped: how often it has been.
        escaped: how often the caller was seen in the test again while it was.
    """

    def __init__(self, test: CodeType) -> None:
        self.is_helper_at_work = False
        self.helped = self.escaped = 0
        self._test = test
        self._main = threading.main_thread().ident or 0

    def work(self) -> None:
        """The task of either thread."""
        if threading.get_ident() == self._main:
            self._until(lambda: self.is_helper_at_work)
            return
        self.is_helper_at_work = True
        self.helped += 1
        self._until(lambda: self._caller() in (interruptible_pool._end.__code__, self._test))
        self.escaped += self._until(lambda: self._caller() is self._test, 200)
        self.is_helper_at_work = False

    def _caller(self) -> CodeType:
        return sys._current_frames()[self._main].f_code

    def _until(self, happens: Callable[[], bool], rounds: int = 2000) -> bool:
        for _ in range(rounds):
            if happens():
                return True
            os.sched_yield()
        return False
