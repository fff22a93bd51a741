"""Copying a chain while somebody else may write to it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import closing

from dirtytrack.checkpoint.format.structures import FileName
from dirtytrack.checkpoint.read.archive import Archive
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile
from dirtytrack.checkpoint.store.protocol import Store

Progress = Callable[[int, int], None]


def copy_files(
    archive: Archive, at: int | str | None, target: Store, progress: Progress | None = None
) -> tuple[str, ...]:
    """Copies the files of a state, or with *at* None of all of them, to a store; returns their names.

    Each is checked before it is copied. What is damaged is not used any more by the archive.

    Raises:
        FileExistsError: the store holds a chain. Nothing was done.
        BusyError, UnsupportedError: as `Store.claim`. Nothing was done.
        ChainError: there is no such state, or none that is intact. Whatever is raised now, nothing is left.
        OSError: as the system says.
    """
    _refuse_chain(target)
    with closing(target.claim()):
        copied: dict[str, None] = {}  # in order
        try:
            while not _copy_some(archive, at, target, copied, progress):
                pass  # a file is damaged: another way to the same states is tried
        except BaseException:
            target.remove([*reversed(copied)])
            raise
    return tuple(copied)


def _copy_some(
    archive: Archive,
    at: int | str | None,
    target: Store,
    copied: dict[str, None],
    progress: Progress | None,
) -> bool:
    # Goes on with what is not copied; whether that was all.
    nodes = archive.nodes_of(at)
    total, done = sum(node.file.nbytes for node in nodes), 0
    for node in nodes:
        file = node.file
        if str(file.name) not in copied:
            if not archive.check(file, lambda _: None):
                return False
            copied[str(file.name)] = None
            copy_file(file, [str(one.name) for one in node.files()[:-1]], target)
        done += file.nbytes
        if progress is not None:
            progress(done, total)
    return True


def copy_file(
    file: CheckpointFile,
    footing: Sequence[str] | None,
    target: Store,
    told: Callable[[int], object] = lambda _: None,
) -> None:
    """Copies one file as it is; *footing* as `NewFile.publish` has it.

    Args:
        file: which.
        footing: see above.
        target: who claimed it calls this.
        told: is called with the number of bytes that are about to be written, for all of them in turn.

    Raises:
        FormatError: it can't be read.
        OSError: as the system says, or *told*.
    """
    new = target.create(str(file.name), file.header.pack(), file.nbytes)
    try:
        for offset, piece in file.pieces(holes=target.maps):
            told(len(piece))
            new.write(offset, [piece])
        new.publish(str(file.name), footing=footing)
    except BaseException:
        new.discard()
        raise


def _refuse_chain(target: Store) -> None:
    if FileName.among(target.names()):
        raise FileExistsError(
            errno.EEXIST, "there is a chain already: choose another directory", target.place
        )
