"""The contents of all regions at one checkpoint, put together from the files of a chain."""

from __future__ import annotations

import errno
import functools
import mmap
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from typing import NamedTuple

from dirtytrack._lifetime.interruptible_pool import Task, run_all
from dirtytrack.checkpoint.format.layout import stored
from dirtytrack.checkpoint.format.structures import (
    BLOCK,
    SEGMENT_BYTES,
    Encoding,
    FormatError,
    Span,
    block_count,
)
from dirtytrack.checkpoint.read.block_owners import ZEROS, BlockOwners, Targets
from dirtytrack.checkpoint.read.buffers import Buffers
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile, StoredSegment
from dirtytrack.checkpoint.read.lineage import Node, tables_of
from dirtytrack.checkpoint.read.populated import populated
from dirtytrack.kernel.touch import Memory

_EXPECTED_BLOCKS = 1 << 18  # a gigabyte
_REMEMBERED = 8 * SEGMENT_BYTES  # bytes of segments, for who reads on where it stopped


class DamagedFile(FormatError):
    """A file that was opened as intact is damaged.

    Attributes:
        file: which.
    """

    def __init__(self, file: CheckpointFile, reason: str) -> None:
        super().__init__(reason)
        self.file = file


class _Owner(NamedTuple):
    # A segment that holds blocks of the state.
    file: CheckpointFile
    stored: StoredSegment


class _Telling:
    """Tells somebody how much is done."""

    def __init__(self, progress: Callable[[int, int], None] | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._done = self._total = 0

    def after(self, task: Task, nbytes: int) -> Task:
        """A task that does the same, and then tells; all of them are made before the first one is done."""
        if self._progress is None:
            return task
        self._total += nbytes
        return functools.partial(self._do, task, nbytes)

    def _do(self, task: Task, nbytes: int) -> None:
        task()
        with self._lock:
            self._done += nbytes
            assert self._progress is not None
            self._progress(self._done, self._total)


class State:
    """All regions at one checkpoint.

    Methods may be called from any thread, `read` by one at a time. Their OSErrors are those of the system; a
    file that turns out damaged is a `DamagedFile`.

    Attributes:
        base: the file that all else is applied to.
        files: all of them, the base first.
        layouts: the table of regions.
    """

    def __init__(self, node: Node) -> None:
        """Reads the indexes.

        Args:
            node: says which files; they must stay open.

        Raises:
            DamagedFile: an index says what can't be.
        """
        self._tables = tables_of(node)
        self.files = tuple(self._tables)
        self.base = self.files[0]
        self.layouts = node.layouts
        self._sizes = [layout.nbytes for layout in stored(node.layouts)]
        self._block_owners = BlockOwners(self._sizes)
        self._owners: list[_Owner] = []
        self._in_base: list[StoredSegment] = []
        self._plain: OrderedDict[int, bytes | memoryview] = OrderedDict()
        self._plain_bytes = 0
        self._window = Targets(len(self._sizes), {})
        self._buffers = Buffers()
        for file in self.files:
            self._add(file)

    def is_zero(self, region: int, first: int, count: int) -> bool:
        """Whether these blocks are known to be zeros. Nothing is read; a stored block may be zeros too."""
        return self._block_owners.is_zero(self._place(region), first, first + count)

    def stored_in(self, files: Iterable[CheckpointFile]) -> dict[int, list[Span]]:
        """The blocks of which some of its files say anything, by the place of a stored region.

        The spans may overlap.

        Raises:
            DamagedFile: an index says what can't be.
        """
        found: dict[int, list[Span]] = {}
        for file in files:
            table = self._tables[file]
            with _blaming(file):
                for run in (run for one in file.segments(table) for run in one.runs.native):
                    place, (first, stop) = table.locate(run)
                    if first < stop:
                        found.setdefault(place, []).append((first, stop))
        return found

    def origins(self, file: CheckpointFile) -> dict[int, int]:
        """The stored regions all of whose blocks one of its files may hold: their places now, and there."""
        table = self._tables[file]
        return {
            place: there
            for there, (place, count) in enumerate(zip(table.places, table.counts, strict=True))
            if count and count == block_count(self._sizes[place])
        }

    def fill(
        self,
        targets: Mapping[int, Memory],
        *,
        zeroed: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Writes every byte of some regions, each once; segments that hold none of them are not read.

        A segment is checked before its bytes are written, but where it is one run for steady memory.

        Where somebody may take the target away meanwhile, a run is checked before its bytes are written: to
        check them afterwards could be a signal.

        Args:
            targets: by the region's place in the table memory of its length. It is undefined after an error.
            zeroed: whether the targets hold zeros already. Where they do not, zeros are written only to
                blocks that hold something else, and memory without a page stays so.
            progress: is told the bytes of stored blocks that are there, and of all; by several threads, one
                at a time.

        Raises:
            DamagedFile: with the file.
            KernelError: the target can't be touched.
        """
        tasks: list[Task] = []
        telling = _Telling(progress)
        for memories in self._rounds(targets):
            numbers, placing = self._placing(Targets(len(self._sizes), memories), telling)
            self._expect(numbers)
            tasks += placing
            if not zeroed:
                zero = self._block_owners.place_zeros
                tasks += [
                    functools.partial(zero, place, memory, start, stop)
                    for place, memory in memories.items()
                    for start, stop in populated(memory.address, memory.nbytes)
                ]
        run_all(tasks)

    def map(self, region: int) -> mmap.mmap:
        """A private, writable mapping of a stored region that the base holds linearly: `complete` it.

        What the base holds in place is neither read nor checked.

        Args:
            region: its place among the base's own, as `origins` has it.

        Raises:
            DamagedFile: with the file.
            OSError: there is no address space.
        """
        with _blaming(self.base):
            return self.base.map(region)

    def complete(self, mappings: Mapping[int, mmap.mmap]) -> None:
        """Writes to such mappings, by place, what the base does not hold in place.

        Raises:
            DamagedFile: with the file.
            KernelError: the file was cut off meanwhile.
        """
        memories = {
            place: Memory(
                f"the mapping of region {self.layouts[place].name!r}",
                memoryview(mapping),
                "Load another checkpoint",
            )
            for place, mapping in mappings.items()
        }
        targets = Targets(len(self._sizes), memories)
        # What the place of a block in the file holds that is zeros by now may be anything.
        tasks: list[Task] = [
            functools.partial(self._clear, one, memories)
            for one in self._in_base
            if self._block_owners.owned(ZEROS, one.runs, targets)
        ]
        run_all([*tasks, *self._placing(targets, in_place=False)[1]])

    def expect(self, region: int, start: int, stop: int) -> None:
        """These bytes of a region are going to be read, from the first to the last."""
        if start < stop:
            place, first = self._place(region), start // BLOCK
            end = min(block_count(stop), first + _EXPECTED_BLOCKS)
            self._expect(sorted(self._block_owners.among(place, first, end) - {ZEROS, *self._plain}))

    def read(self, region: int, start: int, stop: int) -> bytearray:
        """The bytes [start, stop) of a region, from the segments that hold some of them and no others.

        The last segments are remembered, so that reading on where one has stopped decodes each once.

        Raises:
            DamagedFile: with the file.
        """
        if start == stop:
            return bytearray()
        place, first, end = self._place(region), start // BLOCK, block_count(stop)
        data = bytearray(min(end * BLOCK, self._sizes[place]) - first * BLOCK)
        self._window.set(place, Memory("a buffer", memoryview(data), "", is_own=True), first, end)
        try:
            for number in sorted(self._block_owners.among(place, first, end) - {ZEROS}):
                runs = self._owners[number - 1].stored.runs
                self._block_owners.place(number, runs, self._window, self._decoded(number))
        finally:
            self._window.remove(place)
        return data[start - first * BLOCK : stop - first * BLOCK]

    def _place(self, region: int) -> int:
        owner = self.layouts[region].same_as
        return region if owner is None else owner

    def _rounds(self, targets: Mapping[int, Memory]) -> list[dict[int, Memory]]:
        # By place; regions that are one memory may have targets of their own, which come one after the other.
        rounds: list[dict[int, Memory]] = [{}]
        for region, memory in targets.items():
            if memory.nbytes:
                place = self._place(region)
                free = next((one for one in rounds if place not in one), None)
                if free is None:
                    rounds.append(free := {})
                free[place] = memory
        return rounds

    def _add(self, file: CheckpointFile) -> None:
        with _blaming(file):
            for one in file.segments(self._tables[file]):
                if file is self.base:
                    self._in_base.append(one)
                is_stored = one.segment.encoding != Encoding.ZEROS
                if is_stored:
                    self._owners.append(_Owner(file, one))
                try:
                    self._block_owners.give(one.runs, len(self._owners) if is_stored else ZEROS)
                except MemoryError:
                    raise MemoryError(f"{file.name} has regions of too many bytes to read") from None

    def _expect(self, numbers: Iterable[int]) -> None:
        for file, owners in groupby((self._owners[number - 1] for number in numbers), lambda one: one.file):
            file.expect(owner.stored for owner in owners)

    def _placing(
        self, targets: Targets, telling: _Telling | None = None, *, in_place: bool = True
    ) -> tuple[list[int], list[Task]]:
        # The segments with blocks that count, in the order of the files, and what brings these there.
        numbers: list[int] = []
        tasks: list[Task] = []
        for number, (_, one) in enumerate(self._owners, 1):
            is_wanted = in_place or one.segment.encoding != Encoding.IN_PLACE
            owned = is_wanted and self._block_owners.owned(number, one.runs, targets)
            if owned:
                numbers.append(number)
                place = functools.partial(self._place_one, number, targets, owned)
                tasks.append(place if telling is None else telling.after(place, owned * BLOCK))
        return numbers, tasks

    def _place_one(self, number: int, targets: Targets, owned: int) -> None:
        file, one = self._owners[number - 1]
        with _blaming(file):
            if self._read_there(file, one, targets, owned):
                return
        with self._buffers.lend() as buffer:
            with _blaming(file):
                plain = file.read(one, buffer)
            self._block_owners.place(number, one.runs, targets, plain)

    def _read_there(self, file: CheckpointFile, one: StoredSegment, targets: Targets, owned: int) -> bool:
        # Reads a segment to where it belongs, if that is one piece of memory that nobody takes away, and all
        # of it is wanted. Whether that could be done.
        run = one.runs.native[0]
        memory = targets.memories.get(one.runs.table.places[run.extent])
        is_whole = len(one.runs.native) == 1 and owned == run.count and one.segment.codec is None
        if memory is None or not is_whole or not memory.is_steady:
            return False
        start = run.first * BLOCK
        try:
            file.read(one, memory.view[start : start + one.runs.nbytes])
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            return False
        return True

    def _clear(self, one: StoredSegment, memories: Mapping[int, Memory]) -> None:
        for run in one.runs.native:
            place, (first, end) = one.runs.table.locate(run)
            if place in memories and first < end:
                stop = min(end * BLOCK, self._sizes[place])
                self._block_owners.place_zeros(place, memories[place], first * BLOCK, stop)

    def _decoded(self, number: int) -> bytes | memoryview:
        if number in self._plain:
            self._plain.move_to_end(number)
            return self._plain[number]
        owner = self._owners[number - 1]
        with _blaming(owner.file):
            plain = self._plain[number] = owner.file.read(owner.stored)
        self._plain_bytes += len(plain)
        while self._plain_bytes > _REMEMBERED:
            self._plain_bytes -= len(self._plain.popitem(last=False)[1])
        return plain


@contextmanager
def _blaming(file: CheckpointFile) -> Iterator[None]:
    try:
        yield
    except FormatError as error:
        raise DamagedFile(file, str(error)) from error
