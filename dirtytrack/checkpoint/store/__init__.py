"""Where the files of a chain live: one protocol, and the stores that have it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from dirtytrack.checkpoint.store.directory import Directory
from dirtytrack.checkpoint.store.lock import LockName
from dirtytrack.checkpoint.store.protocol import Store

Place = os.PathLike[str] | str | Store


class _Undoes(Protocol):
    def callback(self, act: Callable[[], object], /) -> object: ...


def open_store(
    place: Place, undo: _Undoes, *, create: bool = False, fsync: bool = True, lock: LockName = "record"
) -> Store:
    """The store at a place.

    Args:
        place: a directory's path; or a store, which stays its owner's, and as it is.
        undo: closes what this opens.
        create: make the directory if it is not there.
        fsync: as `Directory` has it.
        lock: the same.

    Raises:
        TypeError: it is neither.
        FileNotFoundError, NotADirectoryError, PermissionError: as the system says.
    """
    if isinstance(place, Store):
        return place
    directory = Directory(Path(place), create=create, fsync=fsync, lock=lock)
    undo.callback(directory.close)
    return directory
