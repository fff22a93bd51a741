"""One call of an object at a time."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class TakesTurns(Protocol):
    """An object with methods that take turns; another one within a method may end it."""

    _in_turn: bool  # whether a method is running; False at first
    _is_ending: bool  # whether `_end` is to be called when the outermost method is done; False at first

    @property
    def _mutex(self) -> threading.RLock: ...

    def _end(self) -> object: ...


_Owner = TypeVar("_Owner", bound=TakesTurns)


def in_turn(
    method: Callable[Concatenate[_Owner, _Arguments], _Result],
) -> Callable[Concatenate[_Owner, _Arguments], _Result]:
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
    def call(self: _Owner, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
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
