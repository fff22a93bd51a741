"""Ctrl-C in a test: at a point of the library that is chosen, or anywhere by a timer."""

from __future__ import annotations

import dis
import gc
import itertools
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import dirtytrack

_PACKAGE = str(Path(dirtytrack.__file__).parent)


# Every which point tests of thousands of points go through; make stress goes through all.
STRIDE = 1 if "DIRTYTRACK_STRESS_SECONDS" in os.environ else 31

# Where the interpreter looks for signals: when a function begins, after a call, and when a loop goes round.
_AFTER = {"CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}


traced = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="Python 3.13 does not trace the instructions of every function"
)


def of_the_package(frame: FrameType) -> bool:
    """Whether the package's own code runs there."""
    return frame.f_code.co_filename.startswith(_PACKAGE)


def _press_ctrl_c() -> None:
    raise KeyboardInterrupt


@contextmanager
def interrupted_at(
    count: int,
    *,
    among: Callable[[FrameType], bool] = of_the_package,
    by: Callable[[], object] = _press_ctrl_c,
) -> Iterator[None]:
    """Run a signal handler at point number *count* of those where one could run.

    Args:
        count: from 1 on.
        among: whether the points in a frame count.
        by: the handler; by default it raises KeyboardInterrupt.
    """
    left = count

    def trace_call(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename == __file__ or not among(frame):
            return None
        frame.f_trace_opcodes = True
        code = frame.f_code.co_code
        last = "CALL"

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal left, last
            if event == "opcode":
                left -= last in _AFTER
                last = dis.opname[code[frame.f_lasti]]
                if left == 0:
                    left = -1  # once
                    by()
            return trace

        return trace

    before = sys.gettrace()
    gc.disable()  # it would run the destructors of other tests' sessions, in which Python drops the interrupt
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for the wish when the tracing begins
    sys.settrace(trace_call)
    try:
        yield
    finally:
        sys.settrace(before)
        gc.enable()


def is_interrupted(act: Callable[[int], None], count: int) -> bool:
    """Whether the interrupt struck. Its traceback, which keeps what the calls held, is gone then."""
    try:
        act(count)
    except KeyboardInterrupt:
        return True
    return False


def at_every_point(act: Callable[[int], None], check: Callable[[], None]) -> None:
    """Run *act* with an interrupt at each point, *check* after each; until one run goes through."""
    for count in range(1, 1000):
        if not is_interrupted(act, count):
            assert count > 5, "nothing was interrupted"
            return
        check()
    pytest.fail("never went through")


class Storm:
    """A timer whose handler raises KeyboardInterrupt, up to *bursts* times for each round."""

    def __init__(self, seed: int, bursts: int) -> None:
        self._rng = random.Random(seed)
        self._bursts = bursts
        self._left = 0
        self.struck = 0
        signal.signal(signal.SIGALRM, self._strike)

    def _strike(self, _number: int, _frame: FrameType | None) -> None:
        if self._left:
            self._left -= 1
            self.struck += 1
            raise KeyboardInterrupt

    def round(self, act: Callable[[], None]) -> None:
        """Run *act* until it has been interrupted, or Python has dropped the interrupt in a destructor."""
        try:
            try:
                self._left = self._bursts
                signal.setitimer(signal.ITIMER_REAL, self._rng.uniform(1e-6, 3e-4), 2e-5)
                self._repeat(act)
            except KeyboardInterrupt:
                self._left = 0
        except KeyboardInterrupt:
            self._left = 0

    def _repeat(self, act: Callable[[], None]) -> None:
        # A function of its own: in Python 3.13 an interrupt at the end of a loop's body passes by the
        # handlers of the function that the loop is in.
        while self._left:
            act()


def interrupting(act: Callable[..., object], at: int | None) -> Callable[..., None]:
    """A function that does what another one does, and is interrupted when it has done so that many times."""
    done = itertools.count(1)

    def act_and_strike(*args: object, **keywords: object) -> None:
        act(*args, **keywords)
        if next(done) == at:
            raise KeyboardInterrupt

    return act_and_strike
