"""One file of a chain, opened by its path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from dirtytrack.checkpoint.read.block_owners import FileTable
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile, StoredSegment
from dirtytrack.checkpoint.store.directory import Directory


def segments(file: CheckpointFile, sizes: Sequence[int]) -> list[StoredSegment]:
    """The index of a file that stands on regions of these sizes."""
    return list(file.segments(FileTable.of_itself(list(sizes))))


def open_file(path: Path) -> CheckpointFile:
    """The file, checked as far as it is when it is opened."""
    with closing(Directory(path.parent)) as store:
        return CheckpointFile(store, path.name)


@contextmanager
def opened(path: Path) -> Iterator[CheckpointFile]:
    """The same, until the block ends."""
    with closing(open_file(path)) as file:
        yield file
