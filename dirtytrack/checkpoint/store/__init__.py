"""Where the files of a chain live: one protocol, and the stores that have it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from dirtytrack.checkpoint.store.directory import Directory
from dirtytrack.checkpoint.store.lock import LockName
from dirtytrack.checkpoint.store.protocol import Store
from dirtytrack.checkpoint.store.urls import StoreOptions, directory_of, open_bucket, scheme_of
from dirtytrack.errors import StoreError

Place = os.PathLike[str] | str | Store


class _Undoes(Protocol):
    def callback(self, act: Callable[[], object], /) -> object: ...


def find_place(place: Place) -> Place:
    """The place, whatever becomes the working directory: a store, a URL of an object store, or a path.

    Raises:
        TypeError: it is none of these.
        StoreError: a URL of a kind that is not known.
    """
    if isinstance(place, Store):
        return place
    scheme, text = scheme_of(place), os.fspath(place)
    if scheme is None:
        return Path(text).absolute()
    return directory_of(text) if scheme == "file" else text


def is_object_store(place: Place) -> bool:
    """Whether a place is the URL of an object store.

    Raises:
        StoreError: a URL of a kind that is not known.
    """
    return scheme_of(place) not in (None, "file")


def open_store(
    place: Place,
    undo: _Undoes,
    *,
    create: bool = False,
    fsync: bool = True,
    lock: LockName = "record",
    options: StoreOptions | None = None,
    grace_period: float | None = None,
) -> Store:
    """The store at a place.

    Args:
        place: a directory's path; a URL; or a store, which stays its owner's, and as it is.
        undo: closes what this opens.
        create: make the directory if it is not there.
        fsync: as `Directory` has it.
        lock: the same.
        options: of an object store, keywords of obstore.store.from_url.
        grace_period: of an object store, see `ObjectStore`. None: the default.

    Raises:
        TypeError: it is none of these.
        StoreError: of the URL, or of the options, which a directory does not have.
        ImportError: a URL, without obstore.
        FileNotFoundError, NotADirectoryError, PermissionError: as the system says.
    """
    if isinstance(place, Store):
        return place
    scheme, text = scheme_of(place), os.fspath(place)
    if is_object_store(place):
        from dirtytrack.checkpoint.store.objects import GRACE_PERIOD, ObjectStore  # seldom needed

        bucket = open_bucket(text, options)
        store = ObjectStore(bucket, GRACE_PERIOD if grace_period is None else grace_period)
        undo.callback(store.close)
        return store
    if options:
        raise StoreError(f"{text} is a directory, which has no store_options")
    path = Path(text) if scheme is None else directory_of(text)
    directory = Directory(path, create=create, fsync=fsync, lock=lock)
    undo.callback(directory.close)
    return directory
