"""A coordinator over files, for processes that see one directory: multiprocessing, tests, batch systems."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

from dirtytrack.checkpoint.records import Root

_FIRST_WAIT, _LONGEST_WAIT = 0.001, 0.1  # seconds between a look and the next one


class FileCoordinator:
    """See `Coordinator`."""

    def __init__(self, path: Path, rank: int, world: int, timeout: float) -> None:
        """Use `file_coordinator`."""
        self.rank, self.world = rank, world
        self._path, self._timeout = path, timeout
        self._bucket = Root.of(path, fsync=False).bucket()
        self._calls = 0

    def gather(self, value: Any) -> list[Any] | None:
        """See `Coordinator`."""
        self._calls += 1
        self._put(self.rank, value)
        return [self._get(rank) for rank in range(self.world)] if self.rank == 0 else None

    def broadcast(self, value: Any) -> Any:
        """See `Coordinator`."""
        self._calls += 1
        if self.rank == 0:
            self._put(0, value)
        return self._get(0)

    def close(self) -> None:
        """See `Coordinator`. The files stay: others may not have read them."""

    def _key(self, rank: int) -> str:
        return f"{self._calls:06}-{rank:06}.json"

    def _put(self, rank: int, value: Any) -> None:
        if not self._bucket.put_new(self._key(rank), json.dumps(value).encode()):
            told = "another group has met here: every start takes a directory of its own"
            raise FileExistsError(errno.EEXIST, told, str(self._path))

    def _get(self, rank: int) -> Any:
        deadline, wait = time.monotonic() + self._timeout, _FIRST_WAIT
        while True:
            try:
                return json.loads(self._bucket.get(self._key(rank)))
            except FileNotFoundError:
                if time.monotonic() > deadline:
                    told = f"rank {rank} of {self.world} did not come within {self._timeout:g} s"
                    raise TimeoutError(errno.ETIMEDOUT, told, str(self._path)) from None
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)


def file_coordinator(
    path: os.PathLike[str] | str, rank: int, world: int, *, timeout: float = 300.0
) -> FileCoordinator:
    """A coordinator for processes that all see a directory.

    Args:
        path: of a directory that no other start of processes has used; it is made if it is not there.
        rank: of this process, from 0.
        world: how many there are.
        timeout: seconds that a process waits for another one, which is then a TimeoutError.

    Raises:
        TypeError, ValueError: of the arguments.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world}: ranks are counted from 0")
    return FileCoordinator(Path(path).absolute(), rank, world, timeout)
