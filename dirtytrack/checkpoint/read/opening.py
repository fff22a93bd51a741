"""Opening all files of a chain while somebody else may add and remove some."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TypeVar

from dirtytrack.checkpoint.format.structures import FileName, FormatError
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile

_LISTINGS = 100  # at most, where there are new files each time

_T = TypeVar("_T")


class Opened(NamedTuple):
    """The files of a chain.

    Attributes:
        files: those that are intact as far as is known.
        problems: why others can't be used.
        gone: those of the first that were removed meanwhile: what they stood on may be, too.
    """

    files: list[CheckpointFile]
    problems: dict[FileName, str]
    gone: frozenset[FileName]


def open_files(directory: Path, undo: ExitStack) -> Opened:
    """Opens what is named like a file of a chain.

    All files that a chain ever had hold states of it, so those of several listings go together. A listing
    with nothing new in it is the last: whatever was removed during the one before it, and what replaced it,
    has been seen.

    *undo* closes them.

    Raises:
        OSError: the directory or a file can't be opened, and it is not the file's fault.
    """
    files: list[CheckpointFile] = []
    problems: dict[FileName, str] = {}
    seen: set[str] = set()
    for _ in range(_LISTINGS):
        there = set(_with_room(os.listdir, directory))
        new = there - seen
        seen |= new
        names = sorted(filter(None, map(FileName.parse, new)))
        for name in names:
            try:
                file = _with_room(CheckpointFile.open, directory / str(name))
            except FileNotFoundError:
                continue  # removed since
            except FormatError as error:
                problems[name] = str(error)
            else:
                undo.callback(file.close)
                files.append(file)
        if not names:
            break
    return Opened(files, problems, frozenset(one.name for one in files if str(one.name) not in there))


def _with_room(call: Callable[[Path], _T], path: Path) -> _T:
    # A chain may have more files than a process may open by default.
    try:
        return call(path)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        return call(path)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise OSError(
            errno.EMFILE,
            f"the chain has more files than this process may open, {hard}: raise `ulimit -n`, or shorten the "
            "chain with compact()",
            str(path),
        ) from error
