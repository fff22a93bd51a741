"""One file of a chain, opened by its path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile
from dirtytrack.checkpoint.store.directory import Directory


def open_file(path: Path) -> CheckpointFile:
    """The file, checked as far as it is when it is opened."""
    with closing(Directory(path.parent)) as store:
        return CheckpointFile(store, path.name)


@contextmanager
def opened(path: Path) -> Iterator[CheckpointFile]:
    """The same, until the block ends."""
    with closing(open_file(path)) as file:
        yield file
