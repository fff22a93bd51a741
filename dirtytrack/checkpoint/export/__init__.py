"""Arrays of a checkpoint as one file for other programs: of safetensors, or npz of numpy."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias

from dirtytrack.checkpoint.export.npz import write_npz
from dirtytrack.checkpoint.export.parts import Part, Pieces, parts_of
from dirtytrack.checkpoint.export.tensors import write_safetensors
from dirtytrack.checkpoint.store import Place, find_place
from dirtytrack.checkpoint.store.system import Folder, check, is_not_offered
from dirtytrack.errors import StoreError
from dirtytrack.native import lib

__all__ = ["FileFormat", "Part", "check_target", "export_parts", "parts_of"]

FileFormat: TypeAlias = Literal["safetensors", "npz"]


def check_target(to: Place) -> Path:
    """The path of a file to be made.

    Raises:
        StoreError: it is the URL of an object store.
        FileExistsError: it is there.
    """
    path = find_place(to)
    if not isinstance(path, Path):
        raise StoreError(f"{to}: such a file is made in a directory. Make it there, and upload it")
    if os.path.lexists(path):
        raise _exists(path)
    return path


def export_parts(
    parts: Sequence[Part],
    path: Path,
    kind: FileFormat,
    *,
    metadata: Mapping[str, str],
    fsync: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes arrays to a file, which gets its name when it is complete, and is for its owner only.

    It takes bounded memory, whatever they are, and on the disk as much room again while it is made.

    Args:
        parts: the arrays.
        path: of the file.
        kind: which file.
        metadata: for the header of a file of safetensors; the names of twins are added, each with its own.
        fsync: whether it is on the disk when this returns.
        progress: is told the bytes done, and in all.

    Raises:
        ChainError: an array can't be in such a file; it is named. Or whatever *read* raises.
        FileExistsError: it is there, by now.
        ImportError: without numpy or safetensors, naming the extra.
        OSError: as the system says. Whatever is raised, there is no file.
    """
    try:
        import numpy  # noqa: F401 - before anything is made
    except ImportError as error:
        raise ImportError('an export needs numpy: pip install "dirtytrack[export]"') from error
    try:
        with TemporaryDirectory(prefix=".export-", dir=path.parent) as scratch:
            made = Path(scratch, "made")
            pieces = Pieces(parts, Path(scratch), progress)
            if kind == "npz":
                write_npz(pieces, made)
            else:
                write_safetensors(pieces, made, metadata)
            made.chmod(0o600)
            if fsync:
                _sync(made)
            _publish(made, path, fsync)
    except OSError as error:
        if error.filename is None:  # what writes does not know where
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if not is_not_offered(error):  # where files can't be synced it is there all the same
                raise


def _publish(made: Path, path: Path, fsync: bool) -> None:
    folder = Folder(path.parent)
    try:
        here = f"{made.parent.name}/{made.name}"
        error = lib.dt_rename_new(folder.fd, here.encode(), os.fsencode(path.name))
        if error == -errno.EEXIST:
            raise _exists(path)
        with folder.naming(path.name):
            check(error)
        if fsync:
            folder.sync()
    finally:
        folder.close()


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "it is there already: choose another name", str(path))
