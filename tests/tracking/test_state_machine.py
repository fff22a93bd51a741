"""Any sequence of calls and writes, against an oracle that is nothing but sets of pages.

With one thread there is no race, so what is reported must be exact: no page too few, none too many. And the
copies that a cursor keeps, by copying only what was reported, must equal the memory byte by byte.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from _lib import limits
from _lib.support import PAGE_SIZE, PMD_SIZE, address_of, in_child
from _lib.tracking.cooling import eager, rest
from _lib.tracking.oracle import ContentOracle, Oracle, Wanted
from dirtytrack import Epoch, ForkedError, PageSet, Session, alloc

_SECONDS = int(os.environ.get("DIRTYTRACK_STRESS_SECONDS", "0"))
_PAGES = 2 * PMD_SIZE // PAGE_SIZE
_ADVICE = {"cold": 20, "populate for reading": 22, "collapse": 25}  # newer than Python's mmap module knows

_libc = ctypes.CDLL(None, use_errno=True)

# Few places, so that writes and regions meet; near the borders of page tables, which are the likeliest to be
# treated wrongly, and now and then anywhere.
_borders = [0, 1, 2, _PAGES // 2 - 1, _PAGES // 2, _PAGES // 2 + 1, _PAGES - 2, _PAGES - 1]
_pages = st.sampled_from(_borders) | st.sampled_from(_borders) | st.integers(0, _PAGES - 1)
_places = st.builds(
    lambda page, byte: page * PAGE_SIZE + byte, _pages, st.sampled_from([0, 0, 1, 100, PAGE_SIZE - 1])
)
_sizes = st.sampled_from([1, 8, PAGE_SIZE - 1, PAGE_SIZE, 2 * PAGE_SIZE, 2 * PAGE_SIZE + 1])
_large_sizes = _sizes | st.sampled_from([40 * PAGE_SIZE, PMD_SIZE, PMD_SIZE + PAGE_SIZE + 5, 2 * PMD_SIZE])
_values = st.integers(0, 255)
_pieces = st.none() | st.tuples(_places, _large_sizes)

# Regions and slices of them, in any order and number; none stands for everything.
_requests = st.lists(st.tuples(st.integers(0, 4), _pieces), max_size=3)
_Requests = list[tuple[int, tuple[int, int] | None]]


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _write_by_process_vm_writev(address: int, data: bytes) -> None:
    source = _Iovec(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data))
    target = _Iovec(address, len(data))
    moved = _libc.process_vm_writev(os.getpid(), ctypes.byref(source), 1, ctypes.byref(target), 1, 0)
    assert moved == len(data), os.strerror(ctypes.get_errno())


class _OnPurpose(Exception):
    pass


@dataclass
class _Held:
    """An epoch that was read, with what it has to give back when it is aborted."""

    cursor: Any
    epoch: Epoch
    pages: Wanted


class Tracking(RuleBasedStateMachine):
    """One session on two page tables' worth of memory; the attributes are set by the subclasses."""

    kind: str
    kernel: str | None
    backend: str
    stops: bool
    adaptive: bool
    keeps_huge_pages: bool

    regions = Bundle("regions")
    cursors = Bundle("cursors")
    epochs = Bundle("epochs")

    def __init__(self) -> None:
        super().__init__()
        limits.begin()  # for each run, not for the whole test: a failure takes many runs to shrink
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("DIRTYTRACK_HOLE_REPORTING", raising=False)
            if self.kernel:
                patch.setenv("DIRTYTRACK_HOLE_REPORTING", self.kernel)
            with eager():
                self.session = Session(
                    backend=self.backend,
                    adaptive=self.adaptive,
                    keep_huge_pages=self.keeps_huge_pages,
                    stop_threads=self.stops,
                )
        self.memory = self._map()
        if self.keeps_huge_pages:
            self.memory[:] = bytes(len(self.memory))  # so that there are some
        kind = ContentOracle if self.backend == "compare" else Oracle
        self.oracle = kind(len(self.memory), PAGE_SIZE)
        self.numbers: dict[Any, int] = {}
        self.names = itertools.count(1)
        self.forks = 0

    def _map(self) -> mmap.mmap:
        if self.kind == "memfd":
            fd = os.memfd_create("state-machine", os.MFD_CLOEXEC)
            os.ftruncate(fd, 2 * PMD_SIZE)
            memory = mmap.mmap(fd, 2 * PMD_SIZE)
            os.close(fd)
            return memory
        memory = alloc(2 * PMD_SIZE, huge=True)
        if self.kind == "small pages":
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        return memory

    def teardown(self) -> None:
        try:
            for cursor in self.numbers:
                self._collect(cursor, list(self.oracle.regions))
                assert not self.oracle.stale(cursor, self.oracle.regions)
            assert self.memory[:] == self.oracle.truth
        finally:
            self.session.close()
            self.memory.close()

    @invariant()
    def cold_memory_is_back(self) -> None:
        """A store that leaves the bytes as they were would not be reported while it is on its way."""
        rest(self.session)

    # Regions and cursors

    @initialize(target=cursors)
    def default_cursor(self) -> Session:
        self.oracle.open(self.session)
        self.numbers[self.session] = 0
        return self.session

    @initialize(target=regions)
    def whole_memory(self) -> Any:
        return self._track(0, len(self.memory), by_address=False)

    @precondition(lambda self: len(self.oracle.regions) < 5)
    @rule(target=regions, start=_places, size=_large_sizes, by_address=st.booleans())
    def track(self, start: int, size: int, by_address: bool) -> Any:
        return self._track(start, min(start + size, len(self.memory)), by_address)

    def _track(self, start: int, stop: int, by_address: bool) -> Any:
        pair = (address_of(self.memory) + start, stop - start)
        region = self.session.track(pair if by_address else memoryview(self.memory)[start:stop])
        self.oracle.track(region, start, stop)
        return region

    @rule(region=consumes(regions))
    def untrack(self, region: Any) -> None:
        self.session.untrack(region)
        self.oracle.untrack(region)

    @precondition(lambda self: len(self.numbers) < 3)
    @rule(target=cursors)
    def open_cursor(self) -> Any:
        cursor = self.session.cursor(f"cursor {next(self.names)}")
        self.oracle.open(cursor)
        self.numbers[cursor] = 0
        return cursor

    @precondition(lambda self: len(self.numbers) == 3)
    @rule(target=cursors, cursor=consumes(cursors))
    def close_cursor(self, cursor: Any) -> Any:
        if cursor is self.session:  # the default cursor stays; so does what is pending for it
            return multiple(cursor)
        cursor.close()
        self.oracle.close(cursor)
        del self.numbers[cursor]
        return multiple()

    # Writes

    @rule(
        start=_places,
        size=_sizes,
        value=_values,
        way=st.sampled_from(["slice", "numpy", "struct", "read from a pipe", "process_vm_writev"]),
    )
    def write(self, start: int, size: int, value: int, way: str) -> None:
        data = bytes([value]) * min(size, len(self.memory) - start)
        stop = start + len(data)
        if way == "slice":
            self.memory[start:stop] = data
        elif way == "numpy":
            np.frombuffer(self.memory, np.uint8)[start:stop] = value
        elif way == "struct":
            struct.pack_into(f"{len(data)}s", self.memory, start, data)
        elif way == "process_vm_writev":
            _write_by_process_vm_writev(address_of(self.memory) + start, data)
        else:
            reader, writer = os.pipe()
            os.write(writer, data)
            assert os.readv(reader, [memoryview(self.memory)[start:stop]]) == len(data)
            os.close(reader)
            os.close(writer)
        self.oracle.store(start, data)

    @precondition(lambda self: self.adaptive)
    @rule(cursor=cursors, page=_pages, times=st.integers(2, 6), value=_values)
    def warm(self, cursor: Any, page: int, times: int, value: int) -> None:
        """Write a page in so many epochs that it is opened."""
        for _ in range(times):
            self.write(page * PAGE_SIZE, 8, value, "slice")
            self._collect(cursor, [])

    @rule(table=st.integers(0, 1), value=_values)
    def fill(self, table: int, value: int) -> None:
        data = bytes([value]) * PMD_SIZE
        self.memory[table * PMD_SIZE : (table + 1) * PMD_SIZE] = data
        self.oracle.store(table * PMD_SIZE, data)

    @rule(page=_pages, size=st.sampled_from([1, 1, 3, 70]), table=st.none() | st.integers(0, 1))
    def drop(self, page: int, size: int, table: int | None) -> None:
        first, last = page, min(page + size, _PAGES)
        if table is not None:
            first, last = table * _PAGES // 2, (table + 1) * _PAGES // 2
        self.memory.madvise(mmap.MADV_DONTNEED, first * PAGE_SIZE, (last - first) * PAGE_SIZE)
        if self.kind != "memfd":  # there only the mapping of the page goes, not its contents
            self.oracle.store(first * PAGE_SIZE, bytes((last - first) * PAGE_SIZE))

    @rule(region=regions, piece=_pieces)
    def mark(self, region: Any, piece: tuple[int, int] | None) -> None:
        start, stop = self._bytes(region, piece)
        self.session.mark(region, start, stop)
        first = self.oracle.regions[region][0]
        self.oracle.dirty(self.oracle.pages(first + start, first + stop))

    # What is no write

    @rule(
        start=_places,
        size=_large_sizes,
        what=st.sampled_from(["read", "mprotect", "cold", "populate for reading", "collapse"]),
    )
    def leave_contents_alone(self, start: int, size: int, what: str) -> None:
        stop = min(start + size, len(self.memory))
        if what == "read":
            assert self.memory[start:stop] == self.oracle.truth[start:stop]
            return
        first, last = start // PAGE_SIZE * PAGE_SIZE, -(-stop // PAGE_SIZE) * PAGE_SIZE
        where, nbytes = ctypes.c_void_p(address_of(self.memory) + first), ctypes.c_size_t(last - first)
        if what == "mprotect":
            assert _libc.mprotect(where, nbytes, mmap.PROT_READ) == 0
            assert _libc.mprotect(where, nbytes, mmap.PROT_READ | mmap.PROT_WRITE) == 0
        else:  # it may be refused: a collapse is wherever a page is armed
            _libc.madvise(where, nbytes, _ADVICE[what])

    @precondition(lambda self: self.forks < 1)
    @rule(cursor=cursors)
    def fork(self, cursor: Any) -> None:
        self.forks += 1

        def child() -> str:
            if self.kind != "memfd":
                self.memory[:PAGE_SIZE] = b"c" * PAGE_SIZE
            try:
                cursor.collect()
            except ForkedError:
                self.session.close()
                return "refused"
            return "answered"

        assert in_child(child).check() == "refused"

    # Verbs

    @rule(target=epochs, cursor=cursors, asked=_requests)
    def collect(self, cursor: Any, asked: _Requests) -> _Held:
        return self._collect(cursor, self._requests(asked))

    @rule(cursor=cursors, asked=_requests, how=st.sampled_from(["fail", "forget to read", "peek", "reset"]))
    def end_otherwise(self, cursor: Any, asked: _Requests, how: str) -> None:
        requests = self._requests(asked)
        asked_pages = self._asked(requests)
        if how == "fail":
            with suppress(_OnPurpose), cursor.collect(*requests) as epoch:
                assert self.oracle.allows(cursor, asked_pages, self._proven(epoch, cursor, asked_pages))
                raise _OnPurpose
            self.numbers[cursor] += 1
        elif how == "forget to read":
            cursor.collect(*requests)
            self.oracle.expected(cursor, asked_pages)
            self.numbers[cursor] += 1
        elif how == "peek":
            epoch = cursor.peek(*requests)
            assert epoch.number == self.numbers[cursor] + 1
            assert self.oracle.allows_peek(cursor, asked_pages, self._proven(epoch, cursor, asked_pages))
            epoch.abort()  # it has nothing to give back
        else:
            cursor.reset(*requests)
            expected = self.oracle.expected(cursor, asked_pages)
            self.oracle.copy_truth(cursor, expected)
            self.oracle.told(cursor, expected)

    @rule(held=consumes(epochs), times=st.integers(1, 2))
    def abort(self, held: _Held, times: int) -> None:
        for _ in range(times):
            held.epoch.abort()
        self.oracle.aborted(held.cursor, held.pages)

    def _collect(self, cursor: Any, requests: list[Any]) -> _Held:
        with cursor.collect(*requests) as epoch:
            pages, asked = self._pages(epoch), self._asked(requests)
            assert self.oracle.allows(cursor, asked, self._proven(epoch, cursor, asked))
            for region, reported in epoch.items():
                for piece in reported.slices():
                    self.oracle.copy(cursor, region, piece.start, bytes(region.view[piece]))
        self.numbers[cursor] += 1
        assert epoch.number == self.numbers[cursor]
        self.oracle.told(cursor, pages)
        assert not self.oracle.stale(cursor, pages)
        return _Held(cursor, epoch, pages)

    # Requests, and what they mean in pages of the memory

    def _requests(self, asked: _Requests) -> list[Any]:
        regions = list(self.oracle.regions)
        chosen = [(regions[index % len(regions)], piece) for index, piece in asked if regions]
        return [
            region if piece is None else region[slice(*self._bytes(region, piece))]
            for region, piece in chosen
        ]

    def _bytes(self, region: Any, piece: tuple[int, int] | None) -> tuple[int, int]:
        """The bytes of a region that are in a piece of the memory, or all of it where none are."""
        first, last = self.oracle.regions[region]
        start, stop = (piece[0], sum(piece)) if piece else (first, last)
        start, stop = max(start, first) - first, min(stop, last) - first
        return (start, stop) if start < stop else (0, region.nbytes)

    def _asked(self, requests: list[Any]) -> Wanted:
        asked: Wanted = {}
        for request in requests or self.oracle.regions:
            region = getattr(request, "region", request)
            first, last = self.oracle.regions[region]
            if request is not region:
                first, last = first + request.start, first + request.stop
            asked.setdefault(region, set()).update(self.oracle.pages(first, last))
        return asked

    def _pages(self, epoch: Epoch) -> Wanted:
        found: Wanted = {}
        for region, pages in epoch.items():
            assert isinstance(pages, PageSet)
            first = self.oracle.regions[region][0] // PAGE_SIZE
            found[region] = {first + page for page in pages}
            assert len(pages) == len(found[region]), "a page is reported twice"
        assert epoch.pages == sum(map(len, found.values()))
        return found

    def _proven(self, epoch: Epoch, cursor: Any, asked: Wanted) -> Wanted:
        """The pages of an epoch without those that it only assumes, and that nobody has to be told of."""
        found = self._pages(epoch)
        expected = self.oracle.expected(cursor, asked) if self.adaptive else {}
        for region, assumed in epoch.assumed.items():
            assert self.adaptive or not assumed
            assert not assumed - epoch[region]
            first = self.oracle.regions[region][0] // PAGE_SIZE
            if assumed:
                found[region] -= {first + page for page in assumed} - expected[region]
        return found


def _machine(
    kind: str,
    kernel: str | None,
    backend: str = "wp-async",
    *,
    adaptive: bool = False,
    keeps: bool = False,
    stops: bool = False,
) -> type:
    options = "Adaptive" * adaptive + "Keeping" * keeps + "Stopping" * stops
    name = f"{kind.title().replace(' ', '')}{(kernel or '').title()}{backend}{options}"
    chosen = {"kind": kind, "kernel": kernel, "backend": backend, "adaptive": adaptive, "stops": stops}
    chosen |= {"keeps_huge_pages": keeps}
    machine = type(name, (Tracking,), chosen)
    machine.TestCase.settings = settings(
        max_examples=15 * _SECONDS or (20 if keeps else 40),
        stateful_step_count=40,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    return pytest.mark.slow(machine.TestCase)


TestSmallPages = _machine("small pages", None)
TestSmallPagesBlind = _machine("small pages", "blind")
TestHugePages = _machine("huge pages", None)
TestHugePagesBlind = _machine("huge pages", "blind")
TestHugePagesKept = _machine("huge pages", None, keeps=True)
TestHugePagesKeptAdaptiveBlind = _machine("huge pages", "blind", adaptive=True, keeps=True)
TestMemfd = _machine("memfd", None)
TestMemfdBlind = _machine("memfd", "blind")
TestSmallPagesAdaptive = _machine("small pages", None, adaptive=True)
TestSmallPagesAdaptiveBlind = _machine("small pages", "blind", adaptive=True)
TestHugePagesAdaptive = _machine("huge pages", None, adaptive=True)
TestMemfdAdaptive = _machine("memfd", None, adaptive=True)
TestSmallPagesStopping = _machine("small pages", None, stops=True)
TestSmallPagesStoppingBlind = _machine("small pages", "blind", adaptive=True, stops=True)
TestSmallPagesCompared = pytest.mark.anywhere(_machine("small pages", None, "compare"))
TestMemfdCompared = pytest.mark.anywhere(_machine("memfd", None, "compare"))
