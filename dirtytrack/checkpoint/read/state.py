"""The contents of all regions at one checkpoint, put together from the files of a chain."""

from __future__ import annotations

import functools
import mmap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from dirtytrack._lifetime.interruptible_pool import Task, run_all
from dirtytrack.checkpoint.format import blocks
from dirtytrack.checkpoint.format.structures import (
    BLOCK,
    Entry,
    FormatError,
    Span,
    block_count,
    gaps,
)
from dirtytrack.checkpoint.read.block_owners import ZEROS, BlockOwners, StoredRun
from dirtytrack.checkpoint.read.buffers import RUN_BYTES, Buffers
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile
from dirtytrack.checkpoint.read.populated import populated
from dirtytrack.kernel.touch import Memory

_ZEROS = bytes(RUN_BYTES)
_PIECE = 1 << 16  # blocks whose owners are looked at at a time


class DamagedFile(FormatError):
    """A file that was opened as intact is damaged.

    Attributes:
        file: which.
    """

    def __init__(self, file: CheckpointFile, reason: str) -> None:
        super().__init__(reason)
        self.file = file


class State:
    """All regions at one checkpoint.

    Methods may be called from any thread. Their OSErrors are those of the system; a file that turns out
    damaged is a `DamagedFile`.

    Attributes:
        base: the file that all else is applied to.
        layouts: the table of regions.
    """

    def __init__(self, files: Sequence[CheckpointFile]) -> None:
        """Reads the indexes.

        Args:
            files: a base, and the deltas after it in order. They must stay open.

        Raises:
            DamagedFile: an index says what can't be.
        """
        self.base = files[0]
        self.layouts = files[-1].layouts
        self._owners: list[BlockOwners] = []
        for layout in self.layouts:
            owner = layout.same_as
            self._owners.append(BlockOwners(layout.nbytes) if owner is None else self._owners[owner])
        self._last: tuple[StoredRun, bytes | memoryview] | None = None
        self._buffers = Buffers()
        for file in files:
            for entry in _entries(file):
                self._owners[entry.region].add(file, entry)

    def is_zero(self, region: int, first: int, count: int) -> bool:
        """Whether these blocks are known to be zeros. Nothing is read; a stored run may hold zeros too."""
        return self._owners[region].is_zero(first, first + count)

    def fill(self, region: int, target: Memory, *, zeroed: bool = False) -> None:
        """Writes every byte of a region, each once; runs that hold none of them are not read.

        Where somebody may take the target away meanwhile, a run is checked before its bytes are written: to
        check them afterwards could be a signal.

        Args:
            region: its place in the table.
            target: memory of the region's length. It is undefined after an error.
            zeroed: whether the target holds zeros already. Where it does not, zeros are written only to
                blocks that hold something else, and memory without a page stays so.

        Raises:
            DamagedFile: with the file.
            KernelError: the target can't be touched.
        """
        owners = self._owners[region]
        tasks, placed = self._placing(owners, target, enumerate(owners.runs, 1))
        if not zeroed:
            zeros = (owners.bytes_of(gap) for gap in gaps(placed, block_count(owners.nbytes)))
            unsure = populated(target.address, target.nbytes)
            tasks += [
                functools.partial(self._zero, target, start, stop)
                for start, stop in _common([(piece.start, piece.stop) for piece in zeros], unsure)
            ]
        run_all(tasks)

    def map(self, region: int) -> mmap.mmap:
        """Memory with a stored region that its base holds linearly: a private, writable mapping of the file.

        What the base holds in place is neither read nor checked.

        Raises:
            DamagedFile: with the file.
            KernelError: the file was cut off meanwhile.
        """
        with _blaming(self.base):
            mapping = self.base.map(region)
        title = f"the mapping of region {self.base.layouts[region].name!r}"
        owners, target = self._owners[region], Memory(title, memoryview(mapping), "Load another checkpoint")
        for entry in _entries(self.base):
            if entry.region == region:  # what the mapping has of blocks that are zeros by now may be anything
                stop = entry.first + entry.blocks
                for start in range(entry.first, stop, _PIECE):
                    for span in owners.owned(ZEROS, start, min(start + _PIECE, stop)):
                        where = owners.bytes_of(span)
                        self._zero(target, where.start, where.stop)
        elsewhere = (item for item in enumerate(owners.runs, 1) if not item[1].lies_in(self.base))
        run_all(self._placing(owners, target, elsewhere)[0])
        return mapping

    def read(self, region: int, start: int, stop: int) -> bytearray:
        """The bytes [start, stop) of a region, from the runs that hold some of them and no others.

        The last run is remembered, so that reading on where one has stopped decodes it once.

        Raises:
            DamagedFile: with the file.
        """
        owners, data, last = self._owners[region], bytearray(stop - start), self._last
        if not data:
            return data
        spans: dict[int, list[Span]] = {}
        for owner, span in owners.groups(start // BLOCK, block_count(stop)):
            spans[owner] = [*spans.pop(owner, []), span]  # who owns the last block comes last
        spans.pop(ZEROS, None)
        for owner, owned in spans.items():
            run = owners.runs[owner - 1]
            plain = last[1] if last is not None and last[0] is run else _read(run)
            self._last = run, plain
            origin = run.entry.first * BLOCK
            for span in owned:
                where = owners.bytes_of(span)
                low, high = max(where.start, start), min(where.stop, stop)
                data[low - start : high - start] = plain[low - origin : high - origin]
        return data

    def _placing(
        self, owners: BlockOwners, target: Memory, runs: Iterable[tuple[int, StoredRun]]
    ) -> tuple[list[Task], list[Span]]:
        # What brings the runs' blocks there, in the order of the files; and which blocks these are.
        tasks: list[Task] = []
        placed: list[Span] = []
        for owner, run in runs:
            first = run.entry.first
            if owned := owners.owned(owner, first, first + run.entry.blocks):
                tasks.append(functools.partial(self._place, owners, run, owned, target))
                placed += owned
        return tasks, placed

    def _place(self, owners: BlockOwners, run: StoredRun, owned: list[Span], target: Memory) -> None:
        # What others own is read, too, for the sake of the checksum.
        whole = (run.entry.first, run.entry.first + run.entry.blocks)
        if owned == [whole]:
            where = owners.bytes_of(whole)
            with _blaming(run.file):
                if run.file.read_in_place(run.entry, target, where.start, where.stop):
                    return
        origin = run.entry.first * BLOCK
        with self._buffers.lend() as buffer:
            plain = memoryview(_read(run, buffer))
            for span in owned:
                where = owners.bytes_of(span)
                target.write(where.start, plain[where.start - origin : where.stop - origin])

    def _zero(self, target: Memory, start: int, stop: int) -> None:
        with self._buffers.lend() as buffer:
            for at in range(start, stop, RUN_BYTES):
                piece = buffer[: stop - at]
                target.read(at, piece)
                for run in blocks.runs_of(0, piece, blocks.classify(piece)):
                    if run.data is not None:
                        target.write(at + run.first * BLOCK, _ZEROS[: len(run.data)])


@contextmanager
def _blaming(file: CheckpointFile) -> Iterator[None]:
    try:
        yield
    except FormatError as error:
        raise DamagedFile(file, str(error)) from error


def _entries(file: CheckpointFile) -> Iterator[Entry]:
    with _blaming(file):
        yield from file.entries()


def _read(run: StoredRun, buffer: memoryview | None = None) -> bytes | memoryview:
    with _blaming(run.file):
        return run.file.read(run.entry, buffer)


def _common(spans: list[Span], others: list[Span]) -> Iterator[Span]:
    # What is in both; each is in order.
    mine, theirs = 0, 0
    while mine < len(spans) and theirs < len(others):
        start, stop = max(spans[mine][0], others[theirs][0]), min(spans[mine][1], others[theirs][1])
        if start < stop:
            yield start, stop
        if spans[mine][1] < others[theirs][1]:
            mine += 1
        else:
            theirs += 1
