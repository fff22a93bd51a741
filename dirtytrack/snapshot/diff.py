"""What is different between two contents of memory, to the byte."""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

from dirtytrack.errors import DiffError
from dirtytrack.native import ffi, lib
from dirtytrack.snapshot import _encoding, _merging
from dirtytrack.snapshot._changes import ROW, Changes
from dirtytrack.snapshot._messages import listed, quoted
from dirtytrack.snapshot._targets import Targets, resolve_targets
from dirtytrack.snapshot.change import Change

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Buffer

    from dirtytrack.snapshot._elements import Elements

_SHOWN = 3


class Diff(Sequence[Change]):
    """Changes of memory: an immutable sequence of `Change`, by region and then by address; none overlap.

    It owns its bytes and knows regions by name and size alone, so it outlives the memory, can be sent
    elsewhere (`to_bytes`, pickle), and applied there. Empty, and false, if nothing is different. Two diffs
    are equal if they say the same of the same regions.
    """

    __slots__ = ("_after", "_before", "_names", "_rows", "_sizes")

    def __init__(self) -> None:
        raise TypeError("a Diff is made by Snapshot.diff, watch or Diff.from_bytes")

    @classmethod
    def _of(cls, sizes: Mapping[str, int], changes: Changes) -> Self:
        return cls._from(dict(sizes), changes.table(), *changes.contents())

    @classmethod
    def _from(cls, sizes: dict[str, int], table: bytes, before: bytes, after: bytes) -> Self:
        self = cls.__new__(cls)
        self._fill(sizes, table, before, after)
        return self

    def _fill(self, sizes: dict[str, int], table: bytes, before: bytes, after: bytes) -> None:
        self._sizes, self._names = sizes, tuple(sizes)
        self._rows = memoryview(table).cast("Q")
        self._before, self._after = before, after

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each region that was compared, by name."""
        return dict(self._sizes)

    @property
    def nbytes(self) -> int:
        """How many bytes the changes span; with a gap, the equal ones within them, too."""
        return len(self._before)

    def __len__(self) -> int:
        return len(self._rows) // ROW

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Change, ...]: ...
    def __getitem__(self, index: int | slice) -> Change | tuple[Change, ...]:
        if isinstance(index, slice):
            return tuple(map(self._change, range(len(self))[index]))
        return self._change(range(len(self))[operator.index(index)])

    def __iter__(self) -> Iterator[Change]:
        return map(self._change, range(len(self)))

    def of(self, region: str) -> tuple[Change, ...]:
        """Returns the changes of one region, all made now; the diff itself makes each when it is asked for.

        Raises:
            KeyError: no region of that name was compared.
        """
        return self[self._range(region)]

    def elements(self, array: np.ndarray[Any, Any], region: str | None = None) -> Elements:
        """Finds the elements of an array that are different.

        Args:
            array: one that has the shape and the type of the region's memory; its contents do not matter.
            region: its name; may be left out if the diff is of one region.

        Raises:
            DiffError: the array has another size than the region.
            ValueError: it is not contiguous, or it has to be said which region.
            KeyError: no region of that name was compared.
            ImportError: without numpy, naming the extra.
        """
        from dirtytrack.snapshot._elements import elements_of

        if region is None:
            if len(self._names) != 1:
                raise ValueError(f"say which region: one of {listed(self._names, len(self._names))}")
            region = self._names[0]
        rows = self._range(region)
        return elements_of(self._rows[rows.start * ROW : rows.stop * ROW], array, region, self._sizes[region])

    def apply(self, *memories: object, check: bool = False) -> None:
        """Writes what is different into memory: what was `before` becomes `after`.

        Everything is checked before the first byte is written. No memory is kept, and none has to be tracked.

        Args:
            *memories: for each region, in their order, what `Session.track` takes, or a region, which has to
                be of that name if it has one; or one mapping of names to these.
            check: whether to refuse memory that does not hold what was before. Default: it is not compared.

        Raises:
            DiffError: other names, numbers or sizes; with *check*, other contents.
            TypeError, ValueError: not writable memory, or the same twice.
            KernelError: memory that can't be written (EFAULT: guard pages, or beyond the end of a file;
                EACCES, a KernelPermissionError: protected), by region and addresses. Nothing was, unless it
                happened in the middle of the call.
            ClosedError: a region that is not tracked any more.
        """
        targets = resolve_targets(self._sizes, memories)
        # Nothing of cffi's may hold these views when this raises: a cycle of garbage, such as a traceback
        # makes, with a memoryview that is exported crashes CPython 3.11 (gh-77894).
        with (
            ffi.from_buffer("struct dt_change[]", self._rows) as rows,
            ffi.from_buffer(self._before) as before,
            ffi.from_buffer(self._after) as after,
        ):
            self._write(targets, rows, before if check else None, after)

    def _write(self, targets: Targets, rows: Any, before: Any, after: Any) -> None:
        count, place, failure = len(self), ffi.new("size_t *", len(self)), ffi.new("struct dt_failure *")
        targets.refuse(lib.dt_changes_check(rows, count, targets.native, failure), failure)
        if before is not None:
            error = lib.dt_changes_match(rows, count, before, targets.native, place, failure)
            targets.refuse(error, failure)
        if place[0] < count:
            change = self[place[0]]
            raise DiffError(
                f"bytes [{change.start}, {change.stop}) of {quoted(change.region)} are not what they were "
                "before: the diff is for another state"
            )
        targets.refuse(lib.dt_changes_apply(rows, count, after, targets.native, failure), failure)

    def invert(self) -> Diff:
        """Returns the diff that undoes this one: before and after exchanged."""
        return Diff._from(self._sizes, bytes(self._rows), self._after, self._before)

    def merge(self, later: Diff) -> Diff:
        """Returns this diff and then *later* as one, with exactly the bytes that differ in the end.

        Raises:
            DiffError: they are of other regions, or *later* does not begin where this one ends.
        """
        if not isinstance(later, Diff):
            raise TypeError(f"merge() takes a Diff, not {later!r}")
        if self._sizes != later._sizes or self._names != later._names:
            first, second = _describe(self._sizes), _describe(later._sizes)
            raise DiffError(f"a diff of {first} can't be followed by one of {second}")
        return Diff._of(self._sizes, _merging.merge((self.of(name), later.of(name)) for name in self._names))

    def to_bytes(self) -> bytes:
        """Returns the diff as bytes, with a version and a checksum; see ``docs/snapshot.md``."""
        return _encoding.encode(*self._contents())

    @classmethod
    def from_bytes(cls, data: Buffer) -> Diff:
        """Reads what `to_bytes` wrote. The bytes are checked, and the diff is no larger than they are.

        Raises:
            DiffError: they are not such bytes, damaged, or of an unknown version.
        """
        return Diff._from(*_encoding.decode(bytes(memoryview(data))))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Diff):
            return NotImplemented
        return self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __reduce__(self) -> tuple[Any, ...]:
        return Diff.from_bytes, (self.to_bytes(),)

    def __repr__(self) -> str:
        shown = ", ".join(f"{quoted(one.region)} [{one.start}, {one.stop})" for one in self[:_SHOWN])
        more = f", and {len(self) - _SHOWN} more" if len(self) > _SHOWN else ""
        count = f"{len(self)} change{'s' * (len(self) != 1)}"
        return f"<Diff: {count}, {self.nbytes} bytes{': ' * bool(shown)}{shown}{more}>"

    def _contents(self) -> tuple[dict[str, int], bytes, bytes, bytes]:
        return self._sizes, bytes(self._rows), self._before, self._after

    def _parts(self) -> tuple[object, ...]:
        sizes, *contents = self._contents()
        return tuple(sizes.items()), *contents

    def _change(self, place: int) -> Change:
        region, start, stop, at = self._rows[place * ROW : (place + 1) * ROW]
        where = slice(at, at + stop - start)
        return Change(
            self._names[region], start, stop, memoryview(self._before)[where], memoryview(self._after)[where]
        )

    def _range(self, region: str) -> slice:
        if region not in self._sizes:
            raise KeyError(
                f"there is no region {quoted(region)}, but {listed(self._names, len(self._names))}"
            )
        place = self._names.index(region)
        regions = self._rows[::ROW]
        return slice(bisect_left(regions, place), bisect_left(regions, place + 1))


def _describe(sizes: Mapping[str, int]) -> str:
    return f"{listed(sizes, len(sizes))} ({sum(sizes.values())} bytes)"
