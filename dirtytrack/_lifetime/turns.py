"""One call of an object at a time."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class TakesTurns(Protocol):
    """An object with methods that take turns."""

    _in_turn: bool  # whether a method is running; False at first

    @property
    def _mutex(self) -> threading.RLock: ...


class Ends(TakesTurns, Protocol):
    """One that can be ended in the middle of a method, by another one within it."""

    _is_ending: bool  # whether `_end` is to be called when the outermost method is done; False at first

    def _end(self) -> object: ...


_Owner = TypeVar("_Owner", bound=TakesTurns)
_Ending = TypeVar("_Ending", bound=Ends)


def in_turn(
    method: Callable[Concatenate[_Ending, _Arguments], _Result],
) -> Callable[Concatenate[_Ending, _Arguments], _Result]:
    """Decorates methods of an object that run one at a time, but within each other in one thread.

    Threads wait for each other. What calls the object in the middle of a call in the same thread (the handler
    of a signal, a destructor) can't wait: its call is done at once, within the other one. So a method has to
    be right although all others may be done, from beginning to end, between any two lines of it: what has to
    agree is one native call, and what a method has to itself is told apart by the object that it returns.
    Only the end has to wait for the outermost method: set ``_is_ending`` for that.

    An interrupt leaves nothing locked: it can't tear the ``with`` of a C lock, as it can an ``acquire`` and
    the ``try`` after it.
    """

    @functools.wraps(method)
    def call(self: _Ending, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with self._mutex:
            is_within = self._in_turn
            self._in_turn = True
            try:
                result = method(self, *args, **kwargs)
            finally:
                self._in_turn = is_within
                if self._is_ending and not is_within:
                    self._end()
        return result

    return call


def alone_in_turn(
    method: Callable[Concatenate[_Owner, _Arguments], _Result],
) -> Callable[Concatenate[_Owner, _Arguments], _Result]:
    """Decorates methods that run one at a time, and not within each other either.

    Raises:
        RuntimeError: by the method, if the handler of a signal calls it in the middle of another one.
    """

    @functools.wraps(method)
    def call(self: _Owner, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with self._mutex:
            if self._in_turn:
                raise RuntimeError(
                    f"{self!r} was called by a signal handler in the middle of another call of it: set a "
                    "flag in the handler, and call it when that has returned"
                )
            self._in_turn = True
            try:
                result = method(self, *args, **kwargs)
            finally:
                self._in_turn = False
        return result

    return call
