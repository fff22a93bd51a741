"""What a directory can do for a chain of checkpoints: found by trying, on files that are gone afterwards."""

from __future__ import annotations

import errno
import json
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from dirtytrack.checkpoint.store.bucket_abilities import try_bucket
from dirtytrack.checkpoint.store.descriptors import Descriptor
from dirtytrack.checkpoint.store.lock import WriterLock
from dirtytrack.checkpoint.store.system import Folder, check
from dirtytrack.checkpoint.store.urls import StoreOptions, directory_of, open_bucket, scheme_of
from dirtytrack.errors import StoreError
from dirtytrack.kernel.support import Check
from dirtytrack.native import lib

_HOLE = 1 << 20
_DATA = b"dirtytrack" * 500
_FREE = 1 << 20  # bytes, below which no chain can begin


class DirectorySupport(NamedTuple):
    """What a directory or a URL can do for a chain of checkpoints, at the time of the call.

    Attributes:
        path: the directory, or the URL.
        works: a chain can be kept there with the default options of a `Checkpointer`.
        checks: what was tried, each with what follows from it: ``ok`` is False where something has to be
            done, which is the ``remedy``, and None where the chain does without.
    """

    path: str
    works: bool
    checks: tuple[Check, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as nested dictionaries, lists and plain values."""
        return {**self._asdict(), "checks": [one._asdict() for one in self.checks]}

    def to_json(self) -> str:
        """Return it as indented JSON."""
        return json.dumps(self.as_dict(), indent=2)


def directory_support(
    path: os.PathLike[str] | str, *, store_options: StoreOptions | None = None
) -> DirectorySupport:
    """Tries what a chain of checkpoints needs of a directory, or of a URL, on files of its own.

    A chain that is there is not touched, nor is its lock. Whether processes on other machines see a lock, of
    a directory that several have mounted, can't be found out from one of them.

    Args:
        path: the directory, or the URL.
        store_options: of a URL, as for `Checkpointer`.

    Raises:
        FileNotFoundError, NotADirectoryError, PermissionError: there is no such directory, or it may not be
            read.
        StoreError, ImportError: of a URL, as for `Checkpointer`.
    """
    scheme, text = scheme_of(path), os.fspath(path)
    if scheme not in (None, "file"):
        return _support(text, tuple(try_bucket(open_bucket(text, store_options))))
    if store_options:
        raise StoreError(f"{text} is a directory, which has no store_options")
    path = path if scheme is None else directory_of(text)
    try:
        folder = Folder(Path(path))
    except FileNotFoundError as error:
        told = "there is no such directory: make it, or name the one above it"
        raise FileNotFoundError(error.errno, told, str(path)) from None
    with closing(folder):
        checks = (_space(folder), *_tried(folder))
    return _support(str(path), checks)


def _support(place: str, checks: tuple[Check, ...]) -> DirectorySupport:
    return DirectorySupport(place, all(one.ok is not False for one in checks), checks)


class _Ability(NamedTuple):
    # What is tried, in a folder for nothing else, and what follows if it works and if not; a remedy where the
    # default options do not work without it.
    name: str
    attempt: Callable[[Folder], None]
    works: str
    lacks: str
    remedy: str = ""


def _tried(folder: Folder) -> Iterator[Check]:
    from tempfile import TemporaryDirectory  # slow to import, and few programs ask

    try:
        scratch = TemporaryDirectory(prefix=".dirtytrack-", dir=folder.path, ignore_cleanup_errors=True)
    except OSError as error:
        yield Check("write", False, f"nothing can be made here: {error.strerror}", _ELSEWHERE)
        return
    with scratch as made, closing(Folder(Path(made))) as inner:
        for ability in _ABILITIES:
            try:
                ability.attempt(inner)
            except OSError as error:
                ok = False if ability.remedy else None
                why = os.strerror(error.errno or errno.EIO)
                yield Check(ability.name, ok, f"{ability.lacks} ({why})", ability.remedy)
            else:
                yield Check(ability.name, True, ability.works)


def _space(folder: Folder) -> Check:
    found = os.fstatvfs(folder.fd)
    if not found.f_blocks:
        return Check("space", None, "the file system does not say how much there is")
    free = found.f_bavail * found.f_frsize
    detail = f"{free >> 20} MiB are free"
    return Check("space", None, detail) if free >= _FREE else Check("space", False, detail, "make room")


def _make(folder: Folder, data: bytes, offset: int = 0) -> Descriptor:
    # A file, open for reading and writing; whoever made one before is done with it.
    with suppress(FileNotFoundError):
        folder.unlink("file")
    file = folder.open("file", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        if os.pwrite(file.fd, data, offset) < len(data) or os.pread(file.fd, len(data), offset) != data:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
    except BaseException:
        file.close()
        raise
    return file


def _write(folder: Folder) -> None:
    _make(folder, _DATA).close()


def _sync(folder: Folder) -> None:
    file = _make(folder, _DATA)
    try:
        os.fsync(file.fd)
    finally:
        file.close()


def _sync_names(folder: Folder) -> None:
    os.fsync(folder.fd)


def _lock(folder: Folder) -> None:
    WriterLock(folder, "record").close()


def _rename(folder: Folder) -> None:
    _write(folder)
    check(lib.dt_rename_noreplace(folder.fd, b"file", b"renamed"))


def _read_removed(folder: Folder) -> None:
    file = _make(folder, _DATA)
    try:
        folder.unlink("file")
        if os.pread(file.fd, len(_DATA), 0) != _DATA:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    finally:
        file.close()


def _skip_hole(folder: Folder) -> None:
    file = _make(folder, _DATA, _HOLE)
    try:
        with suppress(OSError):  # some count what a file takes only then
            os.fsync(file.fd)
        if os.fstat(file.fd).st_blocks * 512 >= _HOLE or os.lseek(file.fd, 0, os.SEEK_DATA) == 0:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    finally:
        file.close()


def _map(folder: Folder) -> None:
    file = _make(folder, _DATA)
    try:
        mmap.mmap(file.fd, len(_DATA), mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE).close()
    finally:
        file.close()


_ELSEWHERE = "choose another directory"
_ABILITIES = (
    _Ability("write", _write, "files can be made, written and removed", "no file can be", _ELSEWHERE),
    _Ability(
        "fsync",
        _sync,
        "what is committed is on the disk",
        "no file can be synced",
        "pass fsync=False (--no-fsync): a crash of the machine may cost checkpoints then",
    ),
    _Ability(
        "fsync of names",
        _sync_names,
        "a committed checkpoint keeps its name in a crash of the machine",
        "a crash of the machine may cost the last checkpoints, though they were committed; one of the "
        "process costs none",
    ),
    _Ability(
        "record locks",
        _lock,
        "a second writer is kept out, and a dead one keeps out nobody",
        "a second writer can't be kept out",
        'see to it that one process writes at a time, and pass lock="none" (--lock none)',
    ),
    _Ability(
        "rename",
        _rename,
        "a file gets its name in one step that replaces nothing",
        "a name is looked up before it is given, which suffices for one writer at a time",
    ),
    _Ability(
        "removed files",
        _read_removed,
        "a reader keeps what a compaction removes",
        "a compaction can't remove what a reader has open, or takes it away",
    ),
    _Ability(
        "holes",
        _skip_hole,
        "zeros of a base that is not compressed take no room",
        "zeros of a base that is not compressed take room",
    ),
    _Ability("mapping", _map, "load(lazy=True) works", "load(lazy=True) does not work"),
)
