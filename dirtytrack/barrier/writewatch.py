"""Written pages by address, as GetWriteWatch of Windows has them."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, NamedTuple

from dirtytrack.kernel.touch import refuse_unwritable
from dirtytrack.native import ffi, lib
from dirtytrack.tracking import Consumer, NativeEpoch, Tracker

if TYPE_CHECKING:
    from typing_extensions import Buffer

_ADDRESS_BYTES = 8
_INTEGERS = ("Q", "q", "L", "l", "B", "b", "c")  # of 8 bytes, or plain bytes


class WriteWatch(NamedTuple):
    """How many pages `get_write_watch` listed, and of which size.

    Attributes:
        pages: how many addresses are in the buffer.
        granularity: the bytes of each page.
    """

    pages: int
    granularity: int


def get_write_watch(address: int, nbytes: int, out: Buffer, *, reset: bool) -> WriteWatch:
    """Lists the pages of a range that were written since it was tracked, or last reset.

    It has the meaning of Windows' GetWriteWatch. There is one state for the pages of a session: that of its
    own cursor, so `Session.collect` takes from the same pages; a `CardTable` or a `Cursor` does not.

    Args:
        address: address of the first byte of the range, in memory that a session of this process tracks.
        nbytes: bytes of the range. It is widened to whole pages.
        out: a writable buffer of unsigned 64-bit integers, such as ``array.array("Q", bytes(800))``. A signal
            handler has one of its own, so that it overwrites nothing of a call that it interrupts.
        reset: re-arm the pages that are listed, and no others. When *out* is full there may be more: with
            reset the next call lists those that come then, none twice and none left out; without, it begins
            behind the last address.

    Returns:
        How many addresses it wrote, ascending, each the first of a page; and the bytes of a page.

    An interrupt (Ctrl-C) forgets no page: the next call lists what this one had taken.

    Raises:
        ValueError: some of the range is not tracked, or its memory is lost, or its pages have several sizes;
            *out* holds no whole number of integers, or is not aligned to them, or has elements of another
            kind (plain bytes will do).
        TypeError, BufferError: *out* is read-only, or no buffer.
        KernelError: *out* can't be stored to (it is protected, or beyond the end of its file); or as for
            `Session.collect`.
    """
    try:
        addresses = ffi.from_buffer("uint8_t[]", out, True)
    except (TypeError, ValueError, BufferError) as error:
        raise type(error)(f"out is a writable buffer of unsigned 64-bit integers: {error}") from None
    with addresses:  # no error may keep an exported view alive: see objects/_views.py
        _check_elements(out)
        place = int(ffi.cast("uintptr_t", addresses))
        if len(addresses) % _ADDRESS_BYTES or (len(addresses) and place % _ADDRESS_BYTES):
            raise ValueError(
                f"out has {len(addresses)} bytes at {place:#x}: "
                "it is to be an array of unsigned 64-bit integers"
            )
        refuse_unwritable("out", place, len(addresses), "Nothing was taken.")
        room = len(addresses) // _ADDRESS_BYTES
        found, epoch = _watch(address, nbytes, reset, ffi.cast("uint64_t *", addresses), room)
    epoch.native.settled = 1  # no call: no interrupt comes after it, and one before it gives the pages back
    return found


def reset_write_watch(address: int, nbytes: int) -> None:
    """Re-arms the pages of a range, and forgets that they were written, as Windows' ResetWriteWatch does.

    Args and errors as for `get_write_watch`.
    """
    _watch(address, nbytes, True, ffi.NULL, 0)


def _check_elements(out: Buffer) -> None:
    with memoryview(out) as view:
        if view.itemsize not in (1, _ADDRESS_BYTES) or view.format.lstrip("@=<") not in _INTEGERS:
            raise ValueError(
                f"out has elements of format {view.format!r}: they are to be unsigned 64-bit integers"
            )


def _watch(
    address: int, nbytes: int, reset: bool, addresses: object, room: int
) -> tuple[WriteWatch, NativeEpoch]:
    start, length = operator.index(address), operator.index(nbytes)
    stop = start + length
    if length < 1 or start < 0 or stop >= 1 << 63:
        raise ValueError(f"{nbytes} bytes at {address:#x} are no range of addresses")
    count, granularity = ffi.new("uint64_t *", room), ffi.new("uint64_t *")
    for tracker in Tracker.all_open():
        consumer = Consumer.default(tracker)
        epoch = NativeEpoch()
        arguments = start, stop, reset, addresses, count, granularity, epoch.native
        error = consumer.call(lib.dt_session_write_watch, *arguments)
        if error == 0:
            return WriteWatch(count[0], granularity[0]), epoch
        if error == -lib.DT_EMIXED:
            raise ValueError(
                f"[{start:#x}, {stop:#x}) has pages of several sizes: ask for each region by itself"
            )
        if error not in (-lib.DT_EUNTRACKED, -lib.DT_ECLOSED):
            raise consumer.error(error)
    for tracker in Tracker.all_open():
        regions = [one for one in tracker.regions if one.address < stop and start < one.address + one.nbytes]
        if any(region.lost for region in regions):
            raise tracker.error(-lib.DT_ELOST, regions)
    raise ValueError(
        f"[{start:#x}, {stop:#x}) is not tracked by one session of this process, or not all of it: track it "
        "first"
    )
