"""One call of an object at a time."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class TakesTurns(Protocol):
    """What has methods that take turns."""

    _in_turn: bool  # initially not

    @property
    def _mutex(self) -> threading.RLock: ...


_Owner = TypeVar("_Owner", bound=TakesTurns)


def in_turn(
    method: Callable[Concatenate[_Owner, _Arguments], _Result],
) -> Callable[Concatenate[_Owner, _Arguments], _Result]:
    """Lets one thread at a time into the methods of an object that are decorated with it.

    An interrupt leaves nothing locked: only the ``with`` of a lock itself can't be torn by one.

    Raises:
        RuntimeError: by the method, when the handler of a signal calls it that interrupted another one.
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
