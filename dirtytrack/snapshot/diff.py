"""What is different between two contents of memory, to the byte."""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

from dirtytrack._html import table
from dirtytrack._text import count, size
from dirtytrack.errors import DiffError
from dirtytrack.native import ffi, lib
from dirtytrack.snapshot import _encoding, _merging
from dirtytrack.snapshot._changes import ROW, Changes, check_byte_count
from dirtytrack.snapshot._messages import listed, quoted
from dirtytrack.snapshot._parts import Parts
from dirtytrack.snapshot._targets import Targets, resolve_targets
from dirtytrack.snapshot.change import Change

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Buffer

    from dirtytrack.snapshot._elements import Elements
    from dirtytrack.snapshot._encoding import Compress

_SHOWN = 3
_NOTHING = memoryview(b"")


class Diff(Sequence[Change]):
    """Changes of memory: an immutable sequence of `Change`, by region and then by address; none overlap.

    It owns its bytes and knows regions by name and size alone, so it outlives the memory, can be sent
    elsewhere (`to_bytes`, pickle), and applied there. Empty, and false, if nothing is different. Two diffs
    are equal if they say the same of the same regions. A one-sided diff does not say what the bytes were.
    """

    __slots__ = ("_names", "_parts", "_rows")

    def __init__(self) -> None:
        raise TypeError("a Diff is made by Snapshot.diff, watch or Diff.from_bytes")

    @classmethod
    def _of(cls, sizes: Mapping[str, int], changes: Changes) -> Self:
        return cls._from(Parts(dict(sizes), changes.table(), *changes.contents()))

    @classmethod
    def _from(cls, parts: Parts) -> Self:
        self = cls.__new__(cls)
        self._fill(parts)
        return self

    def _fill(self, parts: Parts) -> None:
        self._parts, self._names = parts, tuple(parts.sizes)
        self._rows = memoryview(parts.table).cast("Q")

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each region that was compared, by name."""
        return dict(self._parts.sizes)

    @property
    def nbytes(self) -> int:
        """How many bytes the changes span; with a gap, the equal ones within them, too."""
        return len(self._parts.after)

    @property
    def one_sided(self) -> bool:
        """Whether it was sent without what the bytes were (`to_bytes`); `Change.before` is empty then."""
        return self._parts.before is None

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
        nbytes = self._parts.sizes[region]
        return elements_of(self._rows[rows.start * ROW : rows.stop * ROW], array, region, nbytes)

    def apply(self, *memories: object, check: bool = False) -> None:
        """Writes what is different into memory: what was `before` becomes `after`.

        Everything is checked before the first byte is written. No memory is kept, and none has to be tracked.

        Args:
            *memories: for each region, in their order, what `Session.track` takes, or a region, which has to
                be of that name if it has one; or one mapping of names to these.
            check: whether to refuse memory that does not hold what was before. Default: it is not compared.

        Raises:
            DiffError: other names, numbers or sizes; with *check*, other contents, or a one-sided diff.
            TypeError, ValueError: not writable memory, or the same twice.
            KernelError: memory that can't be written (EFAULT: guard pages, or beyond the end of a file;
                EACCES, a KernelPermissionError: protected), by region and addresses. Nothing was, unless it
                happened in the middle of the call.
            ClosedError: a region that is not tracked any more.
        """
        before = self._before() if check else None
        targets = resolve_targets(self._parts.sizes, memories)
        rows, after = ffi.from_buffer("struct dt_change[]", self._parts.table), self._parts.after
        self._write(
            targets, rows, None if before is None else ffi.from_buffer(before), ffi.from_buffer(after)
        )

    def _before(self) -> bytes:
        if self._parts.before is None:
            raise DiffError(
                "the diff is one-sided: it does not say what the bytes were, so there is no check and no way "
                "back; send it with before=True"
            )
        return self._parts.before

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
        """Returns the diff that undoes this one: before and after exchanged.

        Raises:
            DiffError: it is one-sided.
        """
        return Diff._from(self._parts._replace(before=self._parts.after, after=self._before()))

    def merge(self, later: Diff) -> Diff:
        """Returns this diff and then *later* as one, with exactly the bytes that differ in the end.

        If one of them is one-sided the result is, too, and has all bytes that either has.

        Raises:
            DiffError: they are of other regions, or *later* does not begin where this one ends.
        """
        if not isinstance(later, Diff):
            raise TypeError(f"merge() takes a Diff, not {later!r}")
        sizes, other = self._parts.sizes, later._parts.sizes
        if sizes != other or self._names != later._names:
            raise DiffError(f"a diff of {_describe(sizes)} can't be followed by one of {_describe(other)}")
        return Diff._from(_merging.merge(self._parts, later._parts))

    def to_bytes(self, *, compress: Compress = "auto", before: bool = True) -> bytes:
        """Returns the diff as bytes, with a version and a checksum; see ``docs/snapshot.md``.

        Args:
            compress: "zstd" compresses, and "none" does not. "auto", the default, compresses what becomes
                smaller by it, if the library is there: Python 3.14, or the extra ``checkpoint``.
            before: whether to say what the bytes were. Without it the diff is one-sided, and a third to a
                half smaller: it can be applied and merged, but neither inverted nor checked.

        Raises:
            ValueError: *compress* is something else.
            ImportError: "zstd" without the library, naming the extra.
        """
        return _encoding.encode(self._parts if before else self._parts._replace(before=None), compress)

    @classmethod
    def from_bytes(cls, data: Buffer, *, max_nbytes: int | None = 1 << 30) -> Diff:
        """Reads what `to_bytes` wrote, from anywhere: everything is checked.

        Args:
            data: any buffer of bytes.
            max_nbytes: how many bytes they may be, uncompressed, if they are compressed. Default: 1 GiB.
                None: any number. The diff takes at most some twenty times as much memory as that, since each
                of its changes takes 32 bytes; names take more.

        Raises:
            DiffError: they are not such bytes, damaged, of another version, or too many.
            ImportError: they are compressed, and there is no library for it; it names the extra.
        """
        limit = 2**64 if max_nbytes is None else check_byte_count("max_nbytes", max_nbytes)
        return Diff._from(_encoding.decode(bytes(memoryview(data)), limit))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Diff):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[Any, ...]:
        return Diff.from_bytes, (self.to_bytes(compress="none"),)  # whoever reads it may have no library

    def _repr_html_(self) -> str:
        sizes = self._parts.sizes
        rows = [
            (name, f"{self._range(name).stop - self._range(name).start:,}", size(sizes[name]))
            for name in self._names
        ]
        title = f"Diff: {count(len(self), 'change')}, {size(self.nbytes)}"
        return table(title, ("region", "changes", "of bytes"), rows)

    def __repr__(self) -> str:
        shown = ", ".join(f"{quoted(one.region)} [{one.start}, {one.stop})" for one in self[:_SHOWN])
        more = f", and {len(self) - _SHOWN} more" if len(self) > _SHOWN else ""
        count = f"{len(self)} change{'s' * (len(self) != 1)}"
        return f"<Diff: {count}, {self.nbytes} bytes{': ' * bool(shown)}{shown}{more}>"

    def _key(self) -> tuple[object, ...]:
        sizes, *contents = self._parts
        return tuple(sizes.items()), *contents

    def _change(self, place: int) -> Change:
        region, start, stop, at = self._rows[place * ROW : (place + 1) * ROW]
        where, before = slice(at, at + stop - start), self._parts.before
        old = _NOTHING if before is None else memoryview(before)[where]
        return Change(self._names[region], start, stop, old, memoryview(self._parts.after)[where])

    def _range(self, region: str) -> slice:
        if region not in self._parts.sizes:
            raise KeyError(
                f"there is no region {quoted(region)}, but {listed(self._names, len(self._names))}"
            )
        place = self._names.index(region)
        regions = self._rows[::ROW]
        return slice(bisect_left(regions, place), bisect_left(regions, place + 1))


def _describe(sizes: Mapping[str, int]) -> str:
    return f"{listed(sizes, len(sizes))} ({sum(sizes.values())} bytes)"
