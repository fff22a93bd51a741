"""The memory of a recorded program, seen from outside: what is mapped, what was written, whose it is."""

from __future__ import annotations

import bisect
import mmap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from dirtytrack._text import shorten
from dirtytrack.errors import BusyError, KernelError
from dirtytrack.kernel import Userfaultfd, mappings, pagemap
from dirtytrack.kernel.pagemap import Category, ScanFlags
from dirtytrack.native import ffi
from dirtytrack.profile._counters import Written
from dirtytrack.profile._ledger import Ledger
from dirtytrack.profile.recording import Area

_PAGE = mmap.PAGESIZE
_END = 1 << 56
_WINDOW = 1 << 25  # bytes: what small mappings within are told together
_MASK = Category.WPALLOWED | Category.WRITTEN | Category.PFNZERO
_POPULATED = Category.PRESENT | Category.SWAPPED
_LARGE = 1 << 16  # bytes
_MOST_SHARED = 1 << 35  # bytes of a shared mapping: page tables of 64 MiB
_LONGEST = 200  # characters of a name
_MOST_AXES = 32


class Array(NamedTuple):
    """An array that the program was found to have."""

    name: str
    address: int
    nbytes: int
    shape: tuple[int, ...]
    itemsize: int

    @property
    def pages(self) -> tuple[int, int]:
        """The addresses [start, stop) of the pages that it touches."""
        start = self.address // _PAGE * _PAGE
        return start, -(-(self.address + self.nbytes) // _PAGE) * _PAGE


def arrays_of(told: Any) -> list[Array]:
    """Takes what the recorded program has said, as far as it can be true."""
    found = []
    for one in told if isinstance(told, list) else ():
        with suppress(KeyError, TypeError, ValueError):
            shape = tuple(int(length) for length in one["shape"])
            array = Array(
                shorten(str(one["name"]), _LONGEST),
                int(one["address"]),
                int(one["nbytes"]),
                shape,
                int(one["itemsize"]),
            )
            if 0 < array.address < array.address + array.nbytes <= _END and len(shape) <= _MOST_AXES:
                found.append(array)
    return found


class _Stretch(NamedTuple):
    """Addresses of an area, or of a part of one."""

    start: int
    stop: int
    area: int
    base: int  # the address of the area's page 0


@dataclass
class _Found:
    """The areas that were found, in all processes together, by their index.

    Attributes:
        areas: what they are.
        arrays: those of arrays, also of former ones.
        mappings: those of mappings, by their addresses.
        ends: of areas of mappings: the highest address that was mapped.
    """

    areas: dict[int, Area] = field(default_factory=dict)
    arrays: dict[tuple[str, int, tuple[int, ...], int], int] = field(default_factory=dict)
    mappings: dict[tuple[int, int], int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)


class Memory:
    """The private anonymous memory of a process, registered and scanned.

    A forked child's has the areas of its parent: there are no others at these addresses.
    """

    def __init__(
        self,
        pid: int,
        userfaultfd: Userfaultfd,
        ledger: Ledger,
        parent: Memory | None = None,
        *,
        with_shared: bool = False,
    ) -> None:
        """Finds nothing yet.

        Args:
            pid: the process.
            userfaultfd: its own.
            ledger: where areas are counted.
            parent: of a forked child: the memory that it has a copy of.
            with_shared: whether shared memory and files count, too.
        """
        self._pid = pid
        self._userfaultfd = userfaultfd
        self._ledger = ledger
        self._with_shared: bool = with_shared if parent is None else parent._with_shared
        self._shared: list[_Stretch] = []  # mappings of files and shared memory
        self._armed: dict[tuple[int, str], int] = {}  # of these: where each ends
        self.left_out = 0  # bytes of those that are too large, or not asked for, at most at a time
        self._found: _Found = _Found() if parent is None else parent._found
        self._plain: list[_Stretch] = []  # areas of mappings, by address
        self._arrays: list[_Stretch] = []  # of the arrays that there are now
        self._stretches: list[_Stretch] = []  # all of these, no two of which overlap
        if parent is not None:
            self._plain, self._arrays = [*parent._plain], [*parent._arrays]
        self._is_stale = True
        self.busy = 0  # bytes that another userfaultfd has
        self.watched = 0  # bytes, at most at a time
        self.mappings = 0  # changes when there are other large mappings

    def name(self, arrays: Sequence[Array]) -> None:
        """Says which arrays there are: what is written to them is theirs from here on."""
        self._arrays = []
        for array in sorted(arrays, key=lambda one: (one.address, -one.nbytes)):
            start, stop = array.pages
            if self._arrays and start < self._arrays[-1].stop:
                start = self._arrays[-1].stop  # a view of the one before, or a page that they share
                if start >= stop or array.address + array.nbytes <= start:
                    continue
            index = self._area_of(array)
            if index is not None:
                self._arrays.append(_Stretch(start, stop, index, array.pages[0]))
        self._is_stale = True

    def scan(self) -> Iterator[Written]:
        """Finds the pages that were written since the last scan, and arms them.

        Memory that is new counts as written, as far as it is populated.
        """
        ranges = self._register()
        if self._is_stale:
            self._arrange()
        found = [region for start, stop in ranges for region in self._written(start, stop)]
        runs: dict[int, list[tuple[int, int]]] = {}
        at = 0
        for region in found:
            while at < len(self._stretches) and self._stretches[at].stop <= region.start:
                at += 1
            place = at
            while place < len(self._stretches) and self._stretches[place].start < region.end:
                stretch = self._stretches[place]
                start, stop = max(region.start, stretch.start), min(region.end, stretch.stop)
                runs.setdefault(stretch.area, []).append(
                    ((start - stretch.base) // _PAGE, (stop - stretch.base) // _PAGE)
                )
                place += 1
        areas = self._found.areas
        for area, list_ in runs.items():
            pages = sum(stop - start for start, stop in list_)
            nbytes = pages * _PAGE
            if list_[0][0] == 0:
                nbytes -= areas[area].offset
            if list_[-1][1] == areas[area].page_count:
                nbytes -= list_[-1][1] * _PAGE - areas[area].offset - areas[area].nbytes
            yield Written(area, ffi.new("struct dt_run[]", list_), len(list_), pages, nbytes)

    def arm(self) -> None:
        """Forgets what was written up to now."""
        for _ in self.scan():
            pass

    def close(self) -> None:
        """The process goes on, and nothing of it is watched any more."""
        self._userfaultfd.close()

    def finish(self) -> None:
        """Says how long areas of mappings really were; nothing is scanned after it."""
        for index, end in self._found.ends.items():
            area = self._found.areas[index]
            self._ledger.rename(index, replace(area, nbytes=end - area.address))

    def _written(self, start: int, stop: int) -> list[pagemap.PageRegion]:
        return pagemap.scan_all(
            start,
            stop,
            flags=ScanFlags.WP_MATCHING,
            category_mask=_MASK,
            category_inverted=Category.PFNZERO,
            category_anyof_mask=_POPULATED,
            return_mask=0,
            pid=self._pid,
        )

    def _register(self) -> list[tuple[int, int]]:
        # All of it each time: what was unmapped and mapped anew at the same place is registered no more, and
        # nothing tells.
        stretches = mappings.writable(self._pid, shared=self._with_shared)
        if self._with_shared:
            self._arm_shared(stretches)
        self.busy = watched = 0
        large = []
        for start, stop, name in (one for stretch in stretches for one in stretch.mappings):
            try:
                self._userfaultfd.register(start, stop)
            except BusyError:
                self.busy += stop - start
                continue
            except KernelError:  # it is gone already, or nothing that can be registered
                continue
            watched += stop - start
            if name[:1] != "/":
                self._cover(start, stop, name)
            if stop - start >= _LARGE:
                large.append((start, stop))
        self.watched = max(self.watched, watched)
        there = hash(tuple(large))
        if there != self.mappings and not self._with_shared:
            self.left_out = max(self.left_out, sum(stop - start for start, stop, _ in self._all_shared()))
        self.mappings = there
        return [(stretch.start, stretch.stop) for stretch in stretches]

    def _all_shared(self) -> Iterator[tuple[int, int, str]]:
        for stretch in mappings.writable(self._pid, shared=True):
            yield from (one for one in stretch.mappings if one[2][:1] == "/")

    def _arm_shared(self, stretches: Sequence[mappings.Stretch]) -> None:
        # A page of a file that is there was read, or written: so nothing of it counts before it is armed, and
        # what is not there is armed, too. It takes page tables: a five-hundredth of the addresses.
        shared = [one for stretch in stretches for one in stretch.mappings if one[2][:1] == "/"]
        there = {(start, name): stop for start, stop, name in shared}
        if there == self._armed:
            return
        left_out = 0
        self._shared = []
        for start, stop, name in shared:
            before = self._armed.get((start, name), start)
            if stop - start > _MOST_SHARED:
                left_out += stop - start
                continue
            if before < stop:
                with suppress(BusyError, KernelError):  # it is gone already, or another userfaultfd's
                    self._userfaultfd.register(start, stop)
                    self._userfaultfd.write_protect(before, stop)
            index = self._area_at(start, stop, name)
            if index is not None:
                self._found.ends[index] = stop
                self._shared.append(_Stretch(start, stop, index, start))
        self.left_out = max(self.left_out, left_out)
        self._armed = there
        self._is_stale = True

    def _cover(self, start: int, stop: int, name: str) -> None:
        # Sees to it that each address of a mapping is in an area.
        at = start
        while at < stop:
            place = bisect.bisect_right(self._plain, at, key=lambda one: one.start)
            before = self._plain[place - 1] if place else None
            if before is not None and at < before.stop:
                self._found.ends[before.area] = max(self._found.ends[before.area], min(before.stop, stop))
                at = before.stop
                continue
            limit = self._plain[place].start if place < len(self._plain) else _END
            low, high = at, min(stop, limit)
            if stop - start < _WINDOW:
                low = max(at // _WINDOW * _WINDOW, before.stop if before is not None else 0)
                high = min((at // _WINDOW + 1) * _WINDOW, limit)
            index = self._area_at(low, high, name)
            if index is None:
                return
            self._found.ends[index] = max(self._found.ends.get(index, 0), min(high, stop))
            self._plain.insert(place, _Stretch(low, high, index, low))
            self._is_stale = True
            at = high

    def _area_at(self, low: int, high: int, name: str) -> int | None:
        index = self._found.mappings.get((low, high))
        if index is None:
            title = name if name.startswith(("[", "/")) else f"anonymous {low:#x}"
            if name[:1] == "[" and any(area.name == title for area in self._found.areas.values()):
                title = f"{title} {low:#x}"  # of a heap of which there is more than fits one
            area = Area(title, "mapping", low, high - low, 0, _PAGE)
            index = self._ledger.area(area)
            if index is not None:
                self._found.areas[index] = area
                self._found.mappings[low, high] = index
        return index

    def _area_of(self, array: Array) -> int | None:
        offset = array.address % _PAGE
        key = (array.name, array.nbytes, array.shape, offset)
        shape, itemsize = array.shape, array.itemsize
        count = 1
        for length in shape:
            count *= length
        if not shape or min(shape) < 1 or count * itemsize != array.nbytes:
            shape, itemsize = (), 1
        area = Area(array.name, "array", array.address, array.nbytes, offset, _PAGE, shape, itemsize)
        index = self._found.arrays.get(key)
        if index is None:
            index = self._ledger.area(area)
        else:
            self._ledger.rename(index, area)
        if index is not None:
            self._found.arrays[key] = index
            self._found.areas[index] = area
        return index

    def _arrange(self) -> None:
        # The arrays, between them what is left of shared mappings, and between those what is left of others.
        self._stretches = _over(self._arrays, _over(self._shared, self._plain))
        self._is_stale = False


def _over(upper: list[_Stretch], lower: list[_Stretch]) -> list[_Stretch]:
    # The upper ones, and what of the lower ones they do not cover.
    found = list(upper)
    for one in lower:
        at = one.start
        place = bisect.bisect_right(upper, at, key=lambda stretch: stretch.stop)
        while at < one.stop:
            above = upper[place] if place < len(upper) else None
            stop = one.stop if above is None else min(one.stop, max(above.start, at))
            if at < stop:
                found.append(one._replace(start=at, stop=stop))
            if above is None:
                break
            at = max(at, above.stop)
            place += 1
    return sorted(found)
