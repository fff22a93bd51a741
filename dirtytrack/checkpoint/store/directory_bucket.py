"""A directory as a place for objects: what lies beside chains is the same there as in an object store."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dirtytrack.checkpoint.store.bucket import Bucket, Found, check_whole
from dirtytrack.checkpoint.store.descriptors import with_room
from dirtytrack.checkpoint.store.directory import Directory

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PAGE = 1000


def files_below(folder: Path) -> list[tuple[str, list[str]]]:
    """Each folder from there down, with the names of its files; none if there is no such folder.

    Raises:
        OSError: one can't be listed.
    """

    def check(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    return with_room(lambda: [(above, names) for above, _, names in os.walk(folder, onerror=check)])


class DirectoryBucket:
    """See `Bucket`. An object is a file, which is whole and on the disk when it has its name.

    Folders are made for keys, and go with the last file in them. What dead writers have left is listed, too,
    under names that begin with a dot.
    """

    def __init__(self, path: Path, *, fsync: bool = True) -> None:
        """Makes nothing yet.

        Args:
            path: of the directory.
            fsync: whether a file is on the disk when a call returns.
        """
        self.place = str(path)
        self._path, self._fsync = path, fsync

    def put_new(self, key: str, data: Buffer) -> bool:
        """See `Bucket`."""
        where = self._path / key
        for _ in range(2):  # a folder that is empty may be removed in between
            with suppress(FileNotFoundError):
                return self._publish(where, data)
        return self._publish(where, data)

    def put(self, key: str, data: Buffer) -> None:
        """See `Bucket`. None is replaced here: a file that is there is an error."""
        if not self.put_new(key, data):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self._path / key))

    def upload(self, key: str, pieces: Iterator[Buffer], part_bytes: int) -> None:
        """See `Bucket`; as `put`."""
        self.put(key, b"".join(map(bytes, pieces)))

    def copy_from(self, other: Bucket, key: str) -> None:
        """See `Bucket`."""
        self.put(key, other.get_range(key, 0, other.size(key)))

    def get(self, key: str) -> bytes:
        """See `Bucket`. Whoever may write there could have put anything.

        Raises:
            UnreadableError: it is no file.
        """
        where = self._path / key
        folder = self._open(where.parent)
        try:
            with closing(folder.open(where.name)) as file:
                check_whole(file.nbytes)
                data = bytearray(file.nbytes)
                file.read_into(0, [memoryview(data)])
                return bytes(data)
        finally:
            folder.close()

    def get_range(self, key: str, start: int, stop: int) -> Buffer:
        """See `Bucket`."""
        with (self._path / key).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def size(self, key: str) -> int:
        """See `Bucket`."""
        try:
            return (self._path / key).stat().st_size
        except NotADirectoryError:
            self._open(self._path).close()  # or it says so of the place
            raise

    def first_page(self, prefix: str) -> list[Found]:
        """See `Bucket`."""
        return [*self.find(prefix)][:_PAGE]

    def find(self, prefix: str) -> Iterator[Found]:
        """See `Bucket`; in the order of keys."""
        keys = []
        for above, names in files_below(self._path / prefix):
            inner = Path(above).relative_to(self._path)
            keys += [str(inner / name) for name in names]
        for key in sorted(keys):
            with suppress(FileNotFoundError):  # removed since
                status = (self._path / key).stat()
                yield Found(key, status.st_size, status.st_mtime)

    def delete(self, keys: Sequence[str]) -> None:
        """See `Bucket`."""
        for key in keys:
            with suppress(FileNotFoundError):
                (self._path / key).unlink()
        for folder in {Path(key).parent for key in keys}:
            while folder.parts:
                try:
                    (self._path / folder).rmdir()
                except OSError:
                    break  # something else is in it, or it is gone
                folder = folder.parent

    def _open(self, folder: Path) -> Directory:
        try:
            return Directory(folder)
        except NotADirectoryError:
            if self._path.is_dir():
                raise
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.place) from None

    def _publish(self, where: Path, data: Buffer) -> bool:
        folder = Directory(where.parent, create=True, fsync=self._fsync)
        new = folder.create()
        try:
            new.write(0, [data])
            new.publish(where.name)
        except FileExistsError:
            new.discard()
            return False
        except BaseException:
            new.discard()
            raise
        finally:
            folder.close()
        return True
