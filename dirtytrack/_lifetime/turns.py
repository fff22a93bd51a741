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


_Owner = TypeVar("_Owner", bound=TakesTurns)


def in_turn(
    method: Callable[Concatenate[_Owner, _Arguments], _Result],
) -> Callable[Concatenate[_Owner, _Arguments], _Result]:
    """Decorates methods of an object that run one at a time, whichever threads call them.

    An interrupt leaves nothing locked: it can't tear the ``with`` of a C lock, as it can an ``acquire`` and
    the ``try`` after it. The lock is re-entrant: the handler of a signal that calls the object in the middle
    of a call would wait for itself, and gets an error instead.

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
