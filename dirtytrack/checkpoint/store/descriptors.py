"""Descriptors for reading: kept as far as the limit of this process permits, and opened again beyond it.

A chain may have more files than a process may open, and the process needs descriptors for other things. So
all readers together keep at most half of what the limit allows, those that were used last. Before that the
soft limit is raised to the hard one: what is kept stays readable when its file is removed, the rest does not.
"""

from __future__ import annotations

import errno
import functools
import os
import resource
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from dirtytrack.errors import LIMITS

_PRIVATE = 0o600
_LEAST = 8  # that are kept, whatever the limit

_T = TypeVar("_T")


class Descriptor:
    """An open file. It is closed when nobody refers to it: giving it up disturbs nobody who reads."""

    _held: Sequence[int] = ()

    def __init__(self, path: str | Path, flags: int, *, folder: int | None = None) -> None:
        """Opens it; an interrupt leaves nothing open.

        Args:
            path: where it is.
            flags: as of ``os.open``; where they make it, it is for its owner alone.
            folder: the descriptor of the directory that the path begins at; None: the current one.

        Raises:
            OSError: as the system says.
        """
        held: list[int] = []
        self._held = held
        opening = os.open if folder is None else functools.partial(os.open, dir_fd=folder)
        # One call opens it and notes it: an interrupt comes before, or when its destructor knows of it.
        with_room(lambda: held.extend(map(opening, (path,), (flags,), (_PRIVATE,))))

    @property
    def fd(self) -> int:
        """Its number; -1 after `close`, so that nothing goes to another file by mistake."""
        return self._held[0] if self._held else -1

    def close(self) -> None:
        """Closes it now; idempotent."""
        held, self._held = self._held, ()
        if held:
            os.close(held[0])

    def __del__(self, is_exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_exiting():  # then modules are empty
            self.close()


# By a key of its owner's; what was used last is at the end. Each operation is one call, so it needs no lock.
_kept: OrderedDict[object, Descriptor] = OrderedDict()


def keep(key: object, descriptor: Descriptor) -> None:
    """Keeps a descriptor as the one that was used last, and gives up others for it if there are too many."""
    _kept[key] = descriptor
    if len(_kept) > _most():
        _raise_limit()
    while len(_kept) > _most():
        _give_up_one()


def find(key: object) -> Descriptor | None:
    """A descriptor that is to be used now; None if it is not kept, any more or yet."""
    with suppress(KeyError):
        _kept.move_to_end(key)
        return _kept[key]
    return None


def forget(key: object) -> None:
    """Closes a descriptor, if it is kept, for who does not need it any more."""
    descriptor = _kept.pop(key, None)
    if descriptor is not None:
        descriptor.close()


def with_room(call: Callable[[], _T]) -> _T:
    """What a call returns that opens something; what is kept is given up if there is no other room for it.

    Raises:
        OSError: as the call; with EMFILE it names the limit.
    """
    for make_room in (_raise_limit, _give_up_all):
        try:
            return call()
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
        make_room()
    try:
        return call()
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise OSError(errno.EMFILE, LIMITS[errno.EMFILE]) from error


def _most() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(soft // 2, _LEAST)


def _raise_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # a system may permit less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _give_up_one() -> None:
    with suppress(KeyError):  # others give up, too
        _kept.popitem(last=False)


def _give_up_all() -> None:
    while _kept:
        _give_up_one()
