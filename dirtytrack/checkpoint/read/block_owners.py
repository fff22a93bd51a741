"""Which segment holds each block, where several files of a chain hold some of them. The loops are native."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from dirtytrack.checkpoint.format.structures import RUN_RECORD_BYTES, FormatError, Span, block_count
from dirtytrack.errors import KernelError
from dirtytrack.kernel.touch import Memory
from dirtytrack.native import ffi, lib

if TYPE_CHECKING:
    from typing_extensions import Buffer

ZEROS = 0  # the owner of a block that no segment holds

_new = ffi.new_allocator(lib.dt_owners_new, lib.dt_owners_free, should_clear_after_alloc=False)


class Runs(NamedTuple):
    """The runs of a segment, each within its region.

    Attributes:
        table: of their file.
        native: an array of ``struct dt_block_run``.
        nbytes: how many bytes their blocks have.
    """

    table: FileTable
    native: Any
    nbytes: int


class FileTable:
    """The regions as one file lists them, and which blocks of the state its blocks may be.

    Attributes:
        native: the ``struct dt_file_table``.
        sizes: bytes of each region.
        places: of each, its place in the state.
        counts: of each, how many of its first blocks count; 0: the state has nothing of it.
    """

    def __init__(self, sizes: Sequence[int], places: Sequence[int], counts: Sequence[int]) -> None:
        self.sizes, self.places, self.counts = sizes, places, counts
        self._arrays = [ffi.new("uint64_t[]", array) for array in (sizes, places, counts)]
        self.native: Any = ffi.new("struct dt_file_table *", (len(sizes), *self._arrays))

    @classmethod
    def of_itself(cls, sizes: Sequence[int]) -> Self:
        """The one of the state that a file completes."""
        return cls(sizes, [*range(len(sizes))], [*map(block_count, sizes)])

    def load(self, data: bytearray, at: int, count: int) -> Runs:
        """The runs whose bytes in the index begin there.

        Raises:
            FormatError: one of them does not lie in its region, or behind the one before it.
        """
        native: Any = ffi.new("struct dt_block_run[]", count)
        ffi.memmove(native, memoryview(data)[at : at + count * RUN_RECORD_BYTES], count * RUN_RECORD_BYTES)
        nbytes: Any = ffi.new("uint64_t *")
        fitting = lib.dt_runs_load(self.native, native, count, nbytes)
        if fitting < count:
            raise FormatError(self._reason(native[fitting]))
        return Runs(self, native, nbytes[0])

    def locate(self, run: Any) -> tuple[int, Span]:
        """Of a native run: the place of its region in the state, and which blocks of that it may be."""
        return self.places[run.extent], (run.first, min(run.first + run.count, self.counts[run.extent]))

    def _reason(self, run: Any) -> str:
        region, first, blocks = run.extent, run.first, run.count
        if region >= len(self.sizes):
            return f"its index names region {region} of {len(self.sizes)}"
        if not 0 < blocks <= block_count(self.sizes[region]) - first:
            return f"its index names blocks that region {region} does not have"
        return "its index has runs in one segment that do not follow each other"


class Targets:
    """Memory for some regions, by place.

    Attributes:
        native: an array of ``struct dt_target``, one for each region.
        memories: by place.
    """

    def __init__(self, count: int, memories: Mapping[int, Memory]) -> None:
        """Nothing of so many regions but these as a whole."""
        self.native: Any = ffi.new("struct dt_target[]", count)
        self.memories: dict[int, Memory] = {}
        for place, memory in memories.items():
            self.set(place, memory, 0, block_count(memory.nbytes))

    def set(self, place: int, memory: Memory, first: int, stop: int) -> None:
        """Of a region only the blocks [first, stop), which the memory is for."""
        target = self.native[place]
        target.address, target.first, target.stop = memory.address, first, stop
        self.memories[place] = memory

    def remove(self, place: int) -> None:
        """Nothing of a region any more."""
        self.native[place].stop = 0
        del self.memories[place]

    def refused(self, error: int, start: int) -> KernelError:
        """What to raise when a native call could not write to an address of them."""
        for memory in self.memories.values():
            if memory.address - mmap.PAGESIZE < start < memory.address + memory.nbytes:
                return memory.refused(error, start, write=True)
        raise AssertionError(f"{start:#x} is not among what was to be written")


class BlockOwners:
    """The owner of each block of each region: the last segment that holds it, or `ZEROS`.

    An owner is a number that the caller gives a segment, from 1. Only where a segment holds a block this
    takes memory, so a region of zeros of any length takes none.
    """

    def __init__(self, sizes: list[int]) -> None:
        """All blocks are zeros.

        Raises:
            MemoryError: the regions are too many.
        """
        self._native: Any = _new("struct dt_owners *")
        if lib.dt_owners_open(self._native, ffi.new("uint64_t[]", sizes), len(sizes)):
            raise MemoryError

    def give(self, runs: Runs, owner: int) -> None:
        """Their blocks, as far as they count, belong to an owner from here on.

        Raises:
            MemoryError: there is none to note it in.
        """
        if lib.dt_owners_set(self._native, runs.table.native, runs.native, len(runs.native), owner):
            raise MemoryError

    def among(self, region: int, first: int, stop: int) -> set[int]:
        """The owners of these blocks."""
        found: Any = ffi.new("uint32_t[]", stop - first)
        lib.dt_owners_get(self._native, region, first, stop, found)
        return set(found)

    def spans(self, region: int, owner: int, first: int, stop: int) -> Iterator[Span]:
        """What of these blocks an owner has, in order."""
        found: Any = ffi.new("struct dt_run *")
        while lib.dt_owners_next(self._native, region, owner, first, stop, found):
            yield found.start, found.stop
            first = found.stop

    def is_zero(self, region: int, first: int, stop: int) -> bool:
        """Whether no segment holds any of these blocks."""
        return next(self.spans(region, ZEROS, first, stop), None) == (first, stop)

    def owned(self, owner: int, runs: Runs, targets: Targets) -> int:
        """How many blocks of runs an owner has for which there is a target."""
        table, native = runs.table.native, runs.native
        return int(lib.dt_owned(self._native, table, owner, native, len(native), targets.native))

    def place(self, owner: int, runs: Runs, targets: Targets, data: Buffer) -> None:
        """Writes the blocks that an owner has to their targets, from the bytes of all blocks of its runs.

        Raises:
            KernelError: a target can't be written.
        """
        refused: Any = ffi.new("uint64_t *")
        with ffi.from_buffer("uint8_t[]", data) as plain:
            error = lib.dt_place(
                self._native,
                runs.table.native,
                owner,
                runs.native,
                len(runs.native),
                targets.native,
                plain,
                refused,
            )
        if error:
            raise targets.refused(error, refused[0])

    def place_zeros(self, region: int, memory: Memory, start: int, stop: int) -> None:
        """Makes the bytes [start, stop) of a region zeros where no segment holds their blocks.

        Args:
            region: its place.
            memory: for all of it. What holds zeros there already is not written.
            start: the first byte.
            stop: the one after the last.
        """
        refused: Any = ffi.new("uint64_t *")
        error = lib.dt_place_zeros(self._native, region, memory.address, start, stop, refused)
        if error == -errno.ENOMEM:
            raise MemoryError
        if error:
            raise memory.refused(error, refused[0], write=True)
