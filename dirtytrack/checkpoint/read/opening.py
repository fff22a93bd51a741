"""Opening all files of a chain while somebody else may add and remove some."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

from dirtytrack.checkpoint.format.structures import FileName, FormatError
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile
from dirtytrack.checkpoint.store.protocol import Store

_LISTINGS = 100  # at most, where there are new files each time


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


def open_files(store: Store, undo: ExitStack) -> Opened:
    """Opens what is named like a file of a chain.

    All files that a chain ever had hold states of it, so those of several listings go together. A listing
    with nothing new in it is the last: whatever was removed during the one before it, and what replaced it,
    has been seen.

    *undo* closes them.

    Raises:
        OSError: the store can't be listed, or a file not be opened, and it is not the file's fault.
    """
    opened = Opened([], {}, frozenset())
    seen: set[str] = set()
    for _ in range(_LISTINGS):
        there = set(store.names())
        new = FileName.among(there - seen)
        seen |= there
        _open(store, new, opened, undo)
        if not new:
            break
    gone = frozenset(one.name for one in opened.files if str(one.name) not in there)
    return opened._replace(gone=gone)


def open_newest(store: Store, undo: ExitStack) -> Opened | None:
    """Opens the files of the newest state; None where all of them are found as quickly.

    *undo* closes them.

    Raises:
        OSError: as `open_files`.
    """
    names = store.newest_names()
    if names is None:
        return None
    opened = Opened([], {}, frozenset())
    _open(store, FileName.among(names), opened, undo)
    return opened


def _open(store: Store, names: list[FileName], opened: Opened, undo: ExitStack) -> None:
    store.expect([str(name) for name in names])
    for name in names:
        try:
            file = CheckpointFile(store, str(name))
        except FileNotFoundError:
            continue  # removed since
        except PermissionError as error:
            opened.problems[name] = f"it may not be read: {error.strerror}"
        except FormatError as error:
            opened.problems[name] = str(error)
        else:
            undo.callback(file.close)
            opened.files.append(file)
