"""Which cards of a heap were written."""

from __future__ import annotations

import errno
import itertools
import operator
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from dirtytrack._lifetime.closable import Owner
from dirtytrack._lifetime.handle import Handle
from dirtytrack._lifetime.listing import values_of
from dirtytrack._lifetime.undo import Undo
from dirtytrack.barrier.segment import Segment
from dirtytrack.errors import LIMITS, ClosedError, ForkedError, RegionLostError, kernel_error
from dirtytrack.kernel.touch import refuse_unwritable
from dirtytrack.native import cards_look, ffi, lib
from dirtytrack.tracking import (
    Region,
    Session,
    open_consumer,
    resolve,
    session_for,
    track_many,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

_LAYOUTS = {"bits": lib.DT_BITS, "bytes": lib.DT_BYTES}
_MOST_SHIFT = 47  # all of user space
_PEEK, _COLLECT = int(lib.DT_PEEK), int(lib.DT_COLLECT)  # found once: a look-up takes 20 ns


class CardTable(Handle, Owner):
    """The cards of a heap that were written since they were last taken, without a store barrier.

    A card is a piece of the heap of *card_size* bytes; it is dirty if it may have been written.

    `peek` during a concurrent mark, `take` in the final pause: both fill a map of the caller's, in one native
    call that allocates nothing once its buffers have grown, and keeps the GIL if it is short. The map is the
    caller's: it does not change while it is worked off. The table has a cursor of its own, so that other
    users of the session do not disturb it. A context manager, which closes it.

    Stores are seen by page, those of the kernel (``read``, ``recv``) too. Of cards smaller than a page all on
    a written page are dirty; a larger card is dirty if one of its pages was written. No store is lost: one
    made before a take is in that one or was in an earlier one; one that races with it is in that one, the
    next, or both.

    All methods may be called from any thread. In a forked child all but `close` raise ForkedError.
    """

    def __init__(
        self,
        session: Session | None,
        heap: object,
        *,
        card_size: int = 4096,
        layout: Literal["bits", "bytes"] = "bits",
    ) -> None:
        """Tracks a heap from here on; nothing in it is dirty yet.

        Args:
            session: the session to track with. None: that of the region, or `default_session`.
            heap: the first segment: memory as `Session.track` takes it, or a region. It begins and ends on a
                card. `grow` adds others.
            card_size: bytes of a card, a power of two, smaller or larger than a page. Default: 4096.
            layout: what a map has for each card: "bits" (the default), a bit, the least significant first;
                "bytes", a byte, 0 or 1.

        Raises:
            ValueError, TypeError: of the arguments; nothing was touched.
            UnsupportedError, and others: as for `Session.track`.
        """
        self._card_size = _check_card_size(card_size)
        if not isinstance(layout, str) or layout not in _LAYOUTS:
            raise ValueError(f"layout={layout!r}: choose one of {', '.join(_LAYOUTS)}")
        self._layout = layout
        self._check_range(*_range_of(heap))
        self._session = session_for(session, (heap,))
        self._segments: dict[int, tuple[Segment, Undo]] = {}  # by address
        self._growing: set[Undo] = set()  # what an interrupt leaves of growing, even in the undoing of it
        self._changing = threading.RLock()
        self._process = lib.dt_address_space()
        self._begun = self._undo = Undo()
        try:
            self._consumer = open_consumer(self._session, f"card table {id(self):#x}", (), self._undo)
            self._tracker = self._consumer.tracker
            self._owned: Any = ffi.gc(ffi.new("struct dt_cards **"), lib.dt_cards_release)
            shift = self._card_size.bit_length() - 1
            if self._consumer.call(lib.dt_cards_open, shift, _LAYOUTS[layout], self._owned):
                raise MemoryError(f"no memory for a card table. {LIMITS[errno.ENOMEM]}")
            self._native: Any = self._owned[0]
            self._address = int(ffi.cast("uintptr_t", self._native))
            self._next_number = itertools.count(1).__next__
            self._heard = 0  # the number of the last take that has told its caller
            self._undo.callback(self._shrink_all)
            self._closed = False
            self.grow(heap)
            self._begun = None
        except BaseException:
            self._closed = True
            self._undo.close()
            raise

    @property
    def session(self) -> Session:
        """The session that tracks the heap."""
        return self._session

    @property
    def card_size(self) -> int:
        """The size of a card, in bytes."""
        return self._card_size

    @property
    def layout(self) -> Literal["bits", "bytes"]:
        """The layout of the maps: "bits" or "bytes"."""
        return self._layout

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments, in the order of their cards."""
        segments = [segment for segment, _ in values_of(self._segments)]
        return tuple(sorted(segments, key=lambda segment: segment.cards.start))

    @property
    def lost(self) -> tuple[Segment, ...]:
        """The segments whose memory was no longer what was tracked when a take or a peek last looked.

        All their cards are set in that map and in each later one: what was written is unknown. `shrink` takes
        one out; what is in its place now can be added by `grow`.
        """
        self._check()
        return tuple(
            segment for segment in self.segments if lib.dt_cards_is_lost(self._native, segment.region.address)
        )

    @property
    def unstopped(self) -> tuple[int, ...]:
        """The threads that the last take or peek was to stop, and that ran during some of its scan.

        As ``epoch.unstopped``: empty in a session that stops no threads.
        """
        self._check()
        count = max(lib.dt_cards_unstopped(self._native, ffi.NULL, 0), 0)
        threads = ffi.new("int32_t[]", count)
        count = min(count, lib.dt_cards_unstopped(self._native, threads, count)) if count else 0
        return tuple(ffi.unpack(threads, max(count, 0)))

    @property
    def nbytes(self) -> int:
        """The size of a map, in bytes. `grow` and `shrink` may change it."""
        self._check()
        return lib.dt_cards_map_bytes(self._native)

    @property
    def closed(self) -> bool:
        """Whether the table is closed."""
        return self._closed

    def __len__(self) -> int:
        """The number of cards: one more than the last card of any segment. Cards in gaps are never dirty."""
        self._check()
        return lib.dt_cards_count(self._native)

    def take(self, out: Buffer) -> int:
        """Fills *out* with the cards written since the last take, and re-arms their pages.

        Args:
            out: a writable buffer of `nbytes` bytes, outside of the heap; all of it is overwritten. A
                bytearray is the fastest: of other memory it is asked each time whether it can be stored to.

        An interrupt (Ctrl-C) forgets no card: what this take had taken, the next take or peek has.

        Returns:
            The number of cards set, those of lost segments included.

        Raises:
            ValueError, TypeError, BufferError: *out* is read-only, not contiguous, no buffer, or has another
                size; nothing was taken.
            KernelError: *out* can't be stored to: it is protected, or beyond the end of its file. Nothing was
                taken. That is asked first: whoever makes it inaccessible during the call kills the process.
            KernelError: the kernel had no memory for the scan. All cards are set; what was not scanned is in
                the next take.
            BusyError: the signal by which the session stops threads has another handler. The same holds.
            ClosedError, ForkedError: not a table of this process any more.
        """
        number = self._next_number()
        found = self._look(_COLLECT, number, out)
        if number > self._heard:  # no call from here on: an interrupt before it gives the cards back
            self._heard = number
        return found

    def peek(self, out: Buffer) -> int:
        """Fills *out* as `take` does, without re-arming: the next take has these cards, too.

        Args, result and errors as for `take`.
        """
        return self._look(_PEEK, 0, out)

    def mark(self, address: int, nbytes: int) -> None:
        """Declares bytes written, for stores that no page table sees (DMA, another mapping).

        Every other cursor of the session is told, too.

        Raises:
            ValueError: some of the bytes are in no segment; none was marked.
            ClosedError, ForkedError: not a table of this process any more.
        """
        address, nbytes = operator.index(address), operator.index(nbytes)
        self._check()
        if nbytes < 0 or not 0 <= address <= address + nbytes < 1 << 64:
            raise ValueError(f"{nbytes} bytes at {address:#x} are no range of addresses")
        for region, start, stop in self._pieces(address, address + nbytes):
            with suppress(RegionLostError, ClosedError):  # then all cards of the segment are set
                self._tracker.mark(region, *region.geometry.pages_of(start, stop))
        self._check()

    def grow(self, memory: object) -> Segment:
        """Adds a segment; nothing in it is dirty yet. Its cards fill a gap in the table, or go to its end.

        Args:
            memory: as for the constructor.

        Raises:
            ValueError: it overlaps a segment, or does not begin and end on a card.
            TypeError, UnsupportedError, and others: as for `Session.track`. The table is as it was.
        """
        self._check()
        address, nbytes = _range_of(memory)
        self._check_range(address, nbytes)
        with self._changing:
            self._refuse_overlaps(address, nbytes)
            undo = Undo()
            self._growing.add(undo)
            try:
                segment = self._add(memory, address, nbytes, undo)
                self._growing.discard(undo)
                return segment
            except BaseException:
                undo.close()
                self._segments.pop(address, None)
                self._growing.discard(undo)
                raise

    def shrink(self, memory: object) -> None:
        """Takes a segment out, and ends its tracking if it began here. The other cards keep their numbers.

        Args:
            memory: the segment, its region, or what `grow` was given. It need not be mapped any more.

        Raises:
            ValueError: it is no segment of this table.
            ClosedError, ForkedError: not a table of this process any more.
        """
        self._check()
        address, _ = _range_of(memory.region if isinstance(memory, Segment) else memory)
        with self._changing:
            if address not in self._segments:
                raise ValueError(f"no segment begins at {address:#x}: {self!r}")
            self._shrink(address)

    def close(self) -> None:
        """Ends the tracking that it began; idempotent. In a forked child it does nothing."""
        if self._closed:
            return
        if lib.dt_is_address_space(self._process):
            with self._changing:
                self._undo.close()
        self._closed = True

    def _is_forgotten(self) -> bool:
        return lib.dt_is_address_space(self._process) == 1 and not self._session.closed

    def __repr__(self) -> str:
        if self._closed:
            return "<dirtytrack.barrier.CardTable: closed>"
        state = f"{len(self._segments)} segments"
        return f"<dirtytrack.barrier.CardTable: {state}, cards of {self._card_size} bytes>"

    def _look(self, verb: int, number: int, out: Buffer) -> int:
        if type(out) is not bytearray:  # whose memory is malloc's
            _refuse_unwritable(out)
        if not self._tracker.is_in_place():
            self._tracker.find_moved()
        try:
            found = cards_look(self._address, verb, number, self._heard, out)
        except (TypeError, ValueError, BufferError) as error:
            raise _no_map(error) from None
        if found < 0:
            raise self._error(found, _nbytes(out))
        return found

    def _pieces(self, start: int, stop: int) -> list[tuple[Region, int, int]]:
        # The bytes of each segment that [start, stop) is made of.
        pieces = []
        at = start
        while at < stop:
            segment = self._first_in(at, stop)
            if segment is None or segment.region.address > at:
                raise ValueError(f"[{start:#x}, {stop:#x}) is not within the segments: {self!r}")
            region = segment.region
            end = min(region.address + region.nbytes, stop)
            pieces.append((region, at - region.address, end - region.address))
            at = end
        return pieces

    def _first_in(self, start: int, stop: int) -> Segment | None:
        # The first segment that has some of these addresses.
        found = ffi.new("uint64_t *")
        if lib.dt_cards_first_in(self._native, start, stop, found) != 1:
            return None
        segment, _ = self._segments.get(found[0], (None, None))  # None: it goes just now
        return segment

    def _add(self, memory: object, address: int, nbytes: int, undo: Undo) -> Segment:
        (region,) = track_many({f"heap at {address:#x}": memory}, self._session, undo)[1].values()
        undo.callback(self._remove, address)
        first = ffi.new("uint64_t *")
        error = lib.dt_cards_add(self._native, region.id, address, address + nbytes, first)
        if error:
            raise self._error(error)
        cards = range(first[0], first[0] + nbytes // self._card_size)
        segment = Segment(region, cards, self._card_size)
        self._segments[address] = segment, undo
        return segment

    def _remove(self, address: int) -> None:
        lib.dt_cards_remove(self._native, address, ffi.new("uint64_t *"))

    def _shrink(self, address: int) -> None:
        self._segments[address][1].close()
        del self._segments[address]

    def _shrink_all(self) -> None:
        for segment, _ in values_of(self._segments):
            self._shrink(segment.region.address)
        for undo in list(self._growing):
            undo.close()

    def _check(self) -> None:
        if not lib.dt_is_address_space(self._process):
            raise ForkedError(f"{self!r} belongs to another process: make one here")
        if self._closed:
            raise ClosedError(f"{self!r} is closed: make another one")

    def _check_range(self, address: int, nbytes: int) -> None:
        if (address | nbytes) % self._card_size:
            raise ValueError(
                f"{nbytes} bytes at {address:#x} do not begin and end on a card of {self._card_size} bytes: "
                "allocate more, and give the part between two multiples of it"
            )

    def _refuse_overlaps(self, address: int, nbytes: int) -> None:
        other = self._first_in(address, address + nbytes)
        if other is not None:
            raise ValueError(
                f"the new segment at {address:#x} overlaps {other!r}: give every byte of the heap once"
            )

    def _error(self, error: int, nbytes: int = 0) -> Exception:
        if self._closed:
            return ClosedError(f"{self!r} is closed: make another one")
        if error == -lib.DT_ESIZE:
            return ValueError(f"out has {nbytes} bytes: a map of {len(self)} cards has {self.nbytes}")
        if error == -errno.ENOMEM:
            remedy = "The kernel had no memory. All cards are set in out: go on with that, or free some."
            return kernel_error(errno.ENOMEM, "PAGEMAP_SCAN", remedy=remedy)
        return self._consumer.error(error)


def _check_card_size(card_size: int) -> int:
    size = operator.index(card_size)
    if size < 1 or size & (size - 1) or size.bit_length() - 1 > _MOST_SHIFT:
        raise ValueError(f"card_size={card_size}: a power of two, in bytes")
    return size


def _range_of(memory: object) -> tuple[int, int]:
    found = memory if isinstance(memory, Region) else resolve(memory)  # a region need not be tracked any more
    return found.address, found.nbytes


def _refuse_unwritable(out: Buffer) -> None:
    try:
        with ffi.from_buffer("uint8_t[]", out, True) as cards:
            refuse_unwritable("out", int(ffi.cast("uintptr_t", cards)), len(cards), "Nothing was taken.")
    except (TypeError, ValueError, BufferError) as error:
        raise _no_map(error) from None


def _no_map(error: Exception) -> Exception:
    return type(error)(f"out is a writable, contiguous buffer of bytes: {error}")


def _nbytes(out: Buffer) -> int:
    with memoryview(out) as view:
        return view.nbytes
