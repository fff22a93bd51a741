"""The smallest io_uring: one request at a time, into registered buffers. For tests of pinned memory.

Source of the layouts: include/uapi/linux/io_uring.h; the system call numbers are the same on every machine.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from types import TracebackType

_SETUP, _ENTER, _REGISTER = 425, 426, 427
_REGISTER_BUFFERS = 0
_OP_READ_FIXED = 4
_ENTER_GETEVENTS = 1
_NO_MMAP = 1 << 14
_OFF_SQ_RING, _OFF_CQ_RING, _OFF_SQES = 0, 0x8000000, 0x10000000

Bytes = mmap.mmap | memoryview

_libc = ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: int) -> int:
    result: int = _libc.syscall(*(ctypes.c_long(item) for item in (number, *arguments)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"system call {number}: {os.strerror(error)}")
    return result


class Ring:
    """A ring of two entries.

    Args:
        rings: a page of the caller's in the place of one that the kernel maps, with the queue of completions
            in it, as (address, writable bytes).
        entries: another one, for the entries of the submission queue.

    Raises:
        OSError: the kernel, a sysctl or a filter forbids io_uring, or pages of the caller's (Linux 6.5).
    """

    _sq: Bytes
    _cq: Bytes
    _sqes: Bytes

    def __init__(
        self, rings: tuple[int, memoryview] | None = None, entries: tuple[int, memoryview] | None = None
    ) -> None:
        params = ctypes.create_string_buffer(120)
        if rings and entries:
            struct.pack_into("I", params, 8, _NO_MMAP)
            struct.pack_into("Q", params, 72, entries[0])
            struct.pack_into("Q", params, 112, rings[0])
        self._fd = _syscall(_SETUP, 2, ctypes.addressof(params))
        words = struct.unpack("30I", params.raw)
        sq, cq = words[10:20], words[20:30]
        self._sq_tail, self._sq_mask, self._sq_array = sq[1], sq[2], sq[6]
        self._cq_head, self._cq_tail, self._cq_mask, self._cqes = cq[0], cq[1], cq[2], cq[5]
        if rings and entries:
            self._sq = self._cq = rings[1]
            self._sqes = entries[1]
            return
        self._sq = mmap.mmap(self._fd, sq[6] + words[0] * 4, offset=_OFF_SQ_RING)
        self._cq = mmap.mmap(self._fd, cq[5] + words[1] * 16, offset=_OFF_CQ_RING)
        self._sqes = mmap.mmap(self._fd, words[0] * 64, offset=_OFF_SQES)

    def register(self, address: int, nbytes: int) -> None:
        """Pin memory as registered buffer 0, until the ring is closed."""
        iovec = ctypes.create_string_buffer(struct.pack("QQ", address, nbytes), 16)
        _syscall(_REGISTER, self._fd, _REGISTER_BUFFERS, ctypes.addressof(iovec), 1)

    def submit_read(self, fd: int, address: int, nbytes: int) -> None:
        """Start reading from the beginning of a file, or from a pipe, into the registered buffer."""
        self._sqes[0:64] = struct.pack(
            "BBHiQQIIQHHiQQ", _OP_READ_FIXED, 0, 0, fd, 0, address, nbytes, 0, 1, 0, 0, 0, 0, 0
        )
        tail = self._word(self._sq, self._sq_tail)
        self._set_word(self._sq, self._sq_array + (tail & self._word(self._sq, self._sq_mask)) * 4, 0)
        self._set_word(self._sq, self._sq_tail, tail + 1)
        _syscall(_ENTER, self._fd, 1, 0, 0, 0, 0)

    def await_completion(self) -> None:
        """Wait for the request, and store nothing."""
        _syscall(_ENTER, self._fd, 0, 1, _ENTER_GETEVENTS, 0, 0)

    def wait(self) -> int:
        """Wait for the request and return its result: bytes read."""
        self.await_completion()
        head = self._word(self._cq, self._cq_head)
        assert head != self._word(self._cq, self._cq_tail), "no completion"
        entry = self._cqes + (head & self._word(self._cq, self._cq_mask)) * 16
        result: int = struct.unpack_from("i", self._cq, entry + 8)[0]
        self._set_word(self._cq, self._cq_head, head + 1)
        if result < 0:
            raise OSError(-result, f"io_uring read: {os.strerror(-result)}")
        return result

    def close(self) -> None:
        """Close the ring; what it pinned is free again."""
        for mapping in (self._sq, self._cq, self._sqes):
            if isinstance(mapping, memoryview):
                mapping.release()
            else:
                mapping.close()
        os.close(self._fd)

    @staticmethod
    def _word(ring: Bytes, offset: int) -> int:
        word: int = struct.unpack_from("I", ring, offset)[0]
        return word

    @staticmethod
    def _set_word(ring: Bytes, offset: int, value: int) -> None:
        struct.pack_into("I", ring, offset, value & 0xFFFFFFFF)

    def __enter__(self) -> Ring:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
