"""The contents of all regions at one checkpoint: which run of which file holds each block."""

from __future__ import annotations

import functools
import itertools
import mmap
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from dirtytrack.checkpoint.format.structures import (
    BLOCK,
    Encoding,
    Entry,
    FormatError,
    Span,
    block_count,
    gaps,
)
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile
from dirtytrack.checkpoint.store.system import MAP_NORESERVE

_THREADS = min(4, len(os.sched_getaffinity(0)))
_TASKS_PER_THREAD = 4  # fewer are done sooner than a thread is started
_ZEROS = bytes(256 * BLOCK)
_OWNER_BYTES = 4
_OWNERS_PER_PAGE = mmap.PAGESIZE // _OWNER_BYTES
_PIECE = 1 << 16  # blocks whose owners are looked at at a time


class DamagedFile(FormatError):
    """A file that was opened as intact is damaged.

    Attributes:
        file: which.
    """

    def __init__(self, file: CheckpointFile, reason: str) -> None:
        super().__init__(reason)
        self.file = file


class _Run(NamedTuple):
    file: CheckpointFile
    entry: Entry

    def lies_in(self, base: CheckpointFile) -> bool:
        # Whether a mapping of the linear region has it in place.
        linear = base.layouts[self.entry.region].linear
        in_place = linear is not None and self.entry.offset == linear + self.entry.first * BLOCK
        return self.file is base and self.entry.encoding == Encoding.RAW and in_place

    def read(self) -> bytes | memoryview:
        with _blaming(self.file):
            return self.file.read(self.entry)


class _Plan:
    # Who owns each block of one region: a number for each in memory that is only touched where a run was
    # stored, 0 for zeros, else the run's place in the list, from 1.

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.runs: list[_Run] = []
        self._owners: mmap.mmap | None = None

    def add(self, file: CheckpointFile, entry: Entry) -> None:
        if entry.encoding == Encoding.ZEROS:
            self._forget(entry.first, entry.first + entry.blocks)
            return
        if self._owners is None:
            self._owners = self._obtain(file)
        self.runs.append(_Run(file, entry))
        self._set(entry.first, entry.first + entry.blocks, len(self.runs))

    def _obtain(self, file: CheckpointFile) -> mmap.mmap:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        try:
            return mmap.mmap(-1, block_count(self.nbytes) * _OWNER_BYTES, flags=flags)
        except OSError as error:
            raise MemoryError(f"{file.name} has a region of {self.nbytes} bytes, too many to read") from error

    def _set(self, start: int, stop: int, owner: int) -> None:
        assert self._owners is not None
        self._owners[start * _OWNER_BYTES : stop * _OWNER_BYTES] = _mark(owner) * (stop - start)

    def _forget(self, start: int, stop: int) -> None:
        # Whole pages of owners are dropped, so that zeros of any length take no memory and no time.
        if self._owners is None:
            return
        first, last = -(-start // _OWNERS_PER_PAGE), stop // _OWNERS_PER_PAGE
        if first < last:
            self._owners.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)
            self._set(start, first * _OWNERS_PER_PAGE, 0)
            start = last * _OWNERS_PER_PAGE
        self._set(start, stop, 0)

    def owners(self, start: int, stop: int) -> bytes:
        # Of these blocks, one after another.
        if self._owners is None:
            return bytes((stop - start) * _OWNER_BYTES)
        return self._owners[start * _OWNER_BYTES : stop * _OWNER_BYTES]

    def groups(self, start: int, stop: int) -> Iterator[tuple[int, Span]]:
        # The same as spans with one owner.
        for owner, group in itertools.groupby(memoryview(self.owners(start, stop)).cast("I")):
            end = start + len(list(group))
            yield owner, (start, end)
            start = end

    def owned(self, owner: int, start: int, stop: int) -> list[Span]:
        # What of these blocks it owns.
        owners, mark = self.owners(start, stop), _mark(owner)
        if owners == mark * (stop - start):
            return [(start, stop)]
        if mark not in owners:
            return []
        return [span for who, span in self.groups(start, stop) if who == owner]

    def bytes_of(self, span: Span) -> slice:
        return slice(span[0] * BLOCK, min(span[1] * BLOCK, self.nbytes))


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
        self._plans = [_Plan(layout.nbytes) for layout in self.layouts]
        self._last: tuple[_Run, bytes | memoryview] | None = None
        for file in files:
            for entry in _entries(file):
                self._plans[entry.region].add(file, entry)

    def is_zero(self, region: int, first: int, count: int) -> bool:
        """Whether these blocks are known to be zeros. Nothing is read; a stored run may hold zeros too."""
        return not self._plans[region].owners(first, first + count).strip(b"\0")

    def fill(self, region: int, target: memoryview, *, zeroed: bool = False) -> None:
        """Writes every byte of a region, each once; runs that hold none of them are not read.

        Args:
            region: its place in the table.
            target: memory of the region's length. It is undefined after an error.
            zeroed: whether the target holds zeros already; then these are not written.

        Raises:
            DamagedFile: with the file.
        """
        plan = self._plans[region]
        tasks, filled = _placing(plan, target, enumerate(plan.runs, 1))
        if not zeroed:
            tasks.extend(
                functools.partial(_zero, target[plan.bytes_of(gap)])
                for gap in gaps(filled, block_count(plan.nbytes))
            )
        _do(tasks)

    def map(self, region: int) -> mmap.mmap:
        """Memory with a region that its base holds linearly: a private, writable mapping of the base's file.

        What the base holds in place is neither read nor checked.

        Raises:
            DamagedFile: with the file.
        """
        with _blaming(self.base):
            mapping = self.base.map(region)
        plan, target = self._plans[region], memoryview(mapping)
        for entry in _entries(self.base):
            if entry.region == region:  # what the mapping has of blocks that are zeros by now may be anything
                stop = entry.first + entry.blocks
                for start in range(entry.first, stop, _PIECE):
                    for span in plan.owned(0, start, min(start + _PIECE, stop)):
                        _zero(target[plan.bytes_of(span)])
        elsewhere = (item for item in enumerate(plan.runs, 1) if not item[1].lies_in(self.base))
        _do(_placing(plan, target, elsewhere)[0])
        return mapping

    def read(self, region: int, start: int, stop: int) -> bytearray:
        """The bytes [start, stop) of a region, from the runs that hold some of them and no others.

        The last run is remembered, so that reading on where one has stopped decodes it once.

        Raises:
            DamagedFile: with the file.
        """
        plan, data, last = self._plans[region], bytearray(stop - start), self._last
        spans: dict[int, list[Span]] = {}
        for owner, span in plan.groups(start // BLOCK, block_count(stop)):
            spans[owner] = [*spans.pop(owner, []), span]  # who owns the last block comes last
        spans.pop(0, None)
        for owner, owned in spans.items():
            run = plan.runs[owner - 1]
            plain = last[1] if last is not None and last[0] is run else run.read()
            self._last = run, plain
            origin = run.entry.first * BLOCK
            for span in owned:
                where = plan.bytes_of(span)
                low, high = max(where.start, start), min(where.stop, stop)
                data[low - start : high - start] = plain[low - origin : high - origin]
        return data


_Tasks = deque[Callable[[], None]]


@contextmanager
def _blaming(file: CheckpointFile) -> Iterator[None]:
    try:
        yield
    except FormatError as error:
        raise DamagedFile(file, str(error)) from error


def _entries(file: CheckpointFile) -> Iterator[Entry]:
    with _blaming(file):
        yield from file.entries()


def _mark(owner: int) -> bytes:
    return owner.to_bytes(_OWNER_BYTES, sys.byteorder)


def _placing(plan: _Plan, target: memoryview, runs: Iterator[tuple[int, _Run]]) -> tuple[_Tasks, list[Span]]:
    # What brings the runs' blocks there, in the order of the files; and which blocks these are.
    tasks: _Tasks = deque()
    placed: list[Span] = []
    for owner, run in runs:
        first = run.entry.first
        if owned := plan.owned(owner, first, first + run.entry.blocks):
            tasks.append(functools.partial(_place, plan, run, owned, target))
            placed += owned
    return tasks, placed


def _place(plan: _Plan, run: _Run, owned: list[Span], target: memoryview) -> None:
    # What others own is read, too, for the sake of the checksum, and forgotten.
    at, stop = run.entry.first, run.entry.first + run.entry.blocks
    pieces = []
    for start, end in owned:
        if at < start:
            pieces.append(memoryview(bytearray((start - at) * BLOCK)))
        pieces.append(target[plan.bytes_of((start, end))])
        at = end
    if at < stop:
        rest = plan.bytes_of((at, stop))
        pieces.append(memoryview(bytearray(rest.stop - rest.start)))
    with _blaming(run.file):
        run.file.read_into(run.entry, pieces)


def _zero(target: memoryview) -> None:
    for start in range(0, len(target), len(_ZEROS)):
        piece = target[start : start + len(_ZEROS)]
        piece[:] = _ZEROS[: len(piece)]


def _do(tasks: _Tasks) -> None:
    # In order, with the help of other threads if that pays. Once it has returned or raised, none of them does
    # anything any more, whatever an interrupt came between: one that only begins then finds no task.
    failures: list[Exception] = []

    def work(busy: threading.Lock) -> None:
        with busy:
            try:
                while True:
                    try:
                        task = tasks.popleft()
                    except IndexError:
                        return
                    task()
            except Exception as error:
                tasks.clear()
                failures.append(error)

    helpers = [threading.Lock() for _ in range(1, min(_THREADS, len(tasks) // _TASKS_PER_THREAD))]
    try:
        with suppress(RuntimeError):  # there may be no more threads
            for busy in helpers:
                threading.Thread(target=work, args=(busy,), daemon=True).start()
        work(threading.Lock())
    finally:
        _end(tasks, helpers)
    if failures:
        raise failures[0]


def _end(tasks: _Tasks, helpers: list[threading.Lock]) -> None:
    # Also when an interrupt ends the wait: it goes on when all has ended.
    try:
        tasks.clear()
        for busy in helpers:
            with busy:
                pass
    except BaseException:
        _end(tasks, helpers)
        raise
