"""A directory and its mirror, before a writer goes on: the newer one wins, if it continues the other."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import NamedTuple

from dirtytrack._lifetime.undo import Undo
from dirtytrack.checkpoint.format.structures import FileName
from dirtytrack.checkpoint.read.archive import Archive, opened
from dirtytrack.checkpoint.read.lineage import Node
from dirtytrack.checkpoint.store import Place, find_place, open_store
from dirtytrack.checkpoint.store.lock import LockName
from dirtytrack.checkpoint.store.protocol import Store
from dirtytrack.checkpoint.store.urls import StoreOptions
from dirtytrack.checkpoint.write.copying import copy_file
from dirtytrack.checkpoint.write.options import Options
from dirtytrack.errors import BusyError, StoreError


class Pair(NamedTuple):
    """A mirror, and what its directory has.

    Attributes:
        mirror: claimed.
        files: of the directory's newest state, a base first; empty if there is none.
    """

    mirror: Store
    files: list[str]


def find_mirror(options: Options, undo: Undo) -> Store | None:
    """The mirror that is asked for, if one is; it is asked nothing yet, so this comes before the directory.

    Raises:
        StoreError, TypeError, ImportError, ForkedError: as for a Checkpointer with its URL.
    """
    if options.mirror is None:
        return None
    return open_store(options.mirror, undo, options=options.store_options, grace_period=options.grace_period)


def pair(store: Store, mirror: Store | None, undo: Undo, *, is_new: bool) -> Pair | None:
    """The mirror of a directory, with nothing that the directory does not have; None without one.

    Where the mirror's newest state is new to the directory it is fetched. Where the directory has more,
    nothing is done: it is uploaded later.

    Args:
        store: the directory's, claimed.
        mirror: what `find_mirror` has found.
        undo: gives it back.
        is_new: whether a new chain is to be begun.

    Raises:
        StoreError: only a directory has a mirror.
        FileExistsError: the mirror has a chain, and a new one is to be begun.
        BusyError: both were continued, each without the other.
        ChainError, OSError: as for reading a chain; or the directory can't be written.
    """
    if mirror is None:
        return None
    if not store.maps:
        raise StoreError(f"{store.place} is no directory, and only one of these has a mirror")
    undo.callback(mirror.claim().close)
    if is_new and mirror.newest_names():
        told = "the mirror has a chain already: resume() or open() it, or choose another URL"
        raise FileExistsError(errno.EEXIST, told, mirror.place)
    if mirror.newest_names():
        _reconcile(store, mirror)
    if not FileName.among(store.names()):
        return Pair(mirror, [])
    with opened(store) as archive:
        return Pair(mirror, [str(file.name) for file in archive.newest.files()])


def catch_up(
    path: Place,
    mirror: str,
    *,
    fsync: bool = True,
    lock: LockName = "record",
    store_options: StoreOptions | None = None,
) -> None:
    """Fetches the newest state of a mirror to its directory, if it is new there.

    `Checkpointer.open` and `resume` do so by themselves.

    Args:
        path: the directory, which is made if it is not there.
        mirror: its URL.
        fsync: as for `Checkpointer`.
        lock: the same.
        store_options: of the mirror, the same.

    Raises:
        BusyError: both were continued, each without the other; or somebody writes to one of them.
        StoreError: only a directory has a mirror.
        ChainError, OSError: as for reading a chain; or the directory can't be written.
    """
    options = Options(fsync=fsync, lock=lock, mirror=mirror, store_options=store_options)
    undo = Undo()
    try:
        far = find_mirror(options, undo)
        store = open_store(find_place(path), undo, create=True, fsync=options.fsync, lock=options.lock)
        undo.callback(store.claim().close)
        pair(store, far, undo, is_new=False)
    finally:
        undo.close()


def _reconcile(store: Store, mirror: Store) -> None:
    here = FileName.among(store.names())
    with opened(mirror, newest=True) as far:
        if not here:
            _fetch(far.newest.stack(), store, here)
            return
        with opened(store) as near:
            is_one = near.id == far.id
            if is_one and near.has(far.newest.id):
                return
            if is_one and _continues(far, near.newest):
                _fetch(far.newest.stack(), store, here)
                return
            raise BusyError(
                errno.EBUSY,
                f"mirror {store.place} to {mirror.place}",
                remedy=f"Both have gone on, from different states: the directory to checkpoint "
                f"{near.newest.number}, the mirror to {far.newest.number}. Go on with one of them: without "
                "mirror=, or in an empty directory",
            )


def _continues(far: Archive, node: Node) -> bool:
    return any(one.id == node.id for one in far.newest.stack()) or far.has(node.id)


def _fetch(nodes: Sequence[Node], store: Store, here: Sequence[FileName]) -> None:
    for node in nodes:
        if node.file.name not in here:
            copy_file(node.file, (), store)
