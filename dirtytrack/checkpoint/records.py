"""What lies beside chains: numbered records and small objects, in a directory or an object store.

For what is built on chains, such as states of many processes.
"""

from __future__ import annotations

import errno
import functools
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from dirtytrack.checkpoint._arguments import check_meta, check_regions
from dirtytrack.checkpoint.format.structures import FileName
from dirtytrack.checkpoint.read.archive import opened
from dirtytrack.checkpoint.store import find_place, is_object_store, open_store
from dirtytrack.checkpoint.store.bucket import Bucket, Found, retried
from dirtytrack.checkpoint.store.commits import Commit, CommitLog, sealed, unsealed
from dirtytrack.checkpoint.store.descriptors import with_room
from dirtytrack.checkpoint.store.directory_bucket import DirectoryBucket, files_below
from dirtytrack.checkpoint.store.lock import LockName
from dirtytrack.checkpoint.store.protocol import Store, UnreadableError
from dirtytrack.checkpoint.store.urls import StoreOptions, open_bucket
from dirtytrack.checkpoint.write.compression import CompressionName
from dirtytrack.checkpoint.write.keep import Candidate, Keep
from dirtytrack.checkpoint.write.options import Keywords, Options
from dirtytrack.errors import StoreError

__all__ = [
    "Bucket",
    "Candidate",
    "Commit",
    "CommitLog",
    "CompressionName",
    "Found",
    "Keep",
    "Keywords",
    "LockName",
    "Options",
    "Root",
    "StoreOptions",
    "UnreadableError",
    "check_meta",
    "check_regions",
    "is_object_store",
    "retried",
    "sealed",
    "unsealed",
]


_MOST_SHARED = 1000  # files of a state that a branch begins with


class Root(NamedTuple):
    """A directory or a URL below which there are chains, and objects beside them.

    Attributes:
        place: the absolute path, or the URL.
        options: of an object store, as for `Checkpointer`.
        fsync: of a directory, the same.
    """

    place: Path | str
    options: StoreOptions | None = None
    fsync: bool = True

    @classmethod
    def of(
        cls, place: os.PathLike[str] | str, options: StoreOptions | None = None, *, fsync: bool = True
    ) -> Root:
        """The root, whatever becomes the working directory.

        Raises:
            TypeError: it is neither a path nor a URL.
            StoreError: a URL of a kind that is not known, or a directory with options.
        """
        found = find_place(place)
        if isinstance(found, Store):
            raise TypeError(f"a path or a URL, not {place!r}")
        if not isinstance(found, str):
            if options:
                raise StoreError(f"{found} is a directory, which has no store_options")
            return cls(Path(found), None, fsync)
        return cls(found if found.endswith("://") else found.rstrip("/"), options, fsync)

    @property
    def is_remote(self) -> bool:
        """Whether it is in an object store."""
        return is_object_store(self.place)

    def below(self, name: str) -> Path | str:
        """The place of a chain below it."""
        return f"{self.place}/{name}" if isinstance(self.place, str) else self.place / name

    def bucket(self) -> Bucket:
        """The objects below it. Nothing is asked for yet.

        Raises:
            ImportError, StoreError, TypeError, ForkedError: as for a `Checkpointer` with a URL.
        """
        if isinstance(self.place, str):
            return open_bucket(self.place, self.options)
        return DirectoryBucket(self.place, fsync=self.fsync)

    def branch(
        self, source: str, at: str, target: str, lock: LockName = "record", limit: int | None = None
    ) -> None:
        """Begins a chain with a state of another one, whose files it has, too, without their being read.

        In a directory a file has a name in both folders then; an object store makes copies. Whatever becomes
        of the one chain does nothing to the other.

        Args:
            source: folder of the other chain.
            at: identifier of its state.
            target: folder of the new one, which is not there.
            lock: as for `Checkpointer`.
            limit: bytes that the files may take. None: as many as they do.

        Raises:
            ChainError: the state can't be found.
            OSError: the place has no links or no copies, a file was removed meanwhile, there are too many, or
                they take more than the limit.
        """
        with ExitStack() as undo:
            theirs = open_store(self.below(source), undo, options=self.options)
            with opened(theirs, newest=True) as archive:
                files = archive.find(at).files()
                names, nbytes = [str(file.name) for file in files], sum(file.nbytes for file in files)
            if len(names) > _MOST_SHARED:
                told = f"the state stands on {len(names)} files, more than {_MOST_SHARED}"
                raise OSError(errno.EMLINK, told, theirs.place)
            if limit is not None and nbytes > limit:
                told = f"the state stands on {nbytes} bytes, more than {limit}"
                raise OSError(errno.EFBIG, told, theirs.place)
            ours = open_store(
                self.below(target), undo, create=True, fsync=self.fsync, lock=lock, options=self.options
            )
            undo.callback(ours.claim().close)
            ours.adopt(theirs, names)

    def has_checkpoint(self, number: int) -> bool:
        """Whether the chain right there has a checkpoint of that number.

        Raises:
            OSError: as the place says.
        """
        with ExitStack() as undo:
            store = open_store(self.place, undo, options=self.options)
            newest = FileName.among(store.newest_names() or [])
            if any(name.number == number for name in newest):
                return True
            return any(name.number == number for name in FileName.among(store.names()))

    def check_unclaimed(self, folder: str, lock: LockName) -> None:
        """Makes sure that nobody writes to the chains in a folder. In an object store that can't be seen.

        Raises:
            BusyError: somebody does; it says who.
            OSError: as the place says.
        """
        if self.is_remote:
            return
        above = Path(self.place, folder)
        for name in sorted(os.listdir(above)) if above.is_dir() else ():  # noqa: PTH208 - names alone
            with ExitStack() as undo:
                store = open_store(above / name, undo, fsync=self.fsync, lock=lock)
                store.claim().close()

    def usage(self, folder: str) -> dict[str, int]:
        """Bytes that each file of the chains below a folder takes, by its place; with two names, once.

        Raises:
            OSError: as the place says.
        """
        if self.is_remote:
            bucket = self.bucket()
            there = retried(lambda: [*bucket.find(f"{folder}/")])
            return {one.key: one.nbytes for one in there if FileName.parse(one.key.rpartition("/")[2])}
        found, seen = {}, set()
        for above, names in files_below(Path(self.place, folder)):
            for name in filter(FileName.parse, names):
                path = Path(above, name)
                with suppress(FileNotFoundError):  # removed since
                    status = path.lstat()
                    is_first = (status.st_dev, status.st_ino) not in seen
                    seen.add((status.st_dev, status.st_ino))
                    found[str(path.relative_to(self.place))] = status.st_blocks * 512 * is_first
        return found

    def has_chain(self) -> bool:
        """Whether a chain lies right there, and not below it."""
        if isinstance(self.place, str):
            bucket = self.bucket()
            return bool(retried(lambda: bucket.first_page("commits/")))
        try:
            names = with_room(functools.partial(os.listdir, self.place))
        except FileNotFoundError:
            return False
        return bool(FileName.among(names))
