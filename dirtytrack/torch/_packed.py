"""One region for what is not tracked where it lies: the form of a state, small tensors, plain values."""

from __future__ import annotations

import collections
import struct
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch

from dirtytrack.native import ffi
from dirtytrack.tracking import alloc

_HEADER = struct.Struct("<4Q")  # lengths of the form, of the small tensors, of the values; version
_VERSION = 1
_BLOCK = 4096
_LEAST = 1 << 20
_SPARE = 4
_ALIGNMENT = 16


class Packed:
    """Memory for the three, in this order, each from a block on, so that what changes moves nothing else.

    Attributes:
        form: the first of them, as it was given.
        memory: all of it, with room to spare, since other memory is read as a whole.
    """

    def __init__(self, nbytes: int) -> None:
        """Makes room for so many bytes, with nothing in it: `arrange` it."""
        self.form = b""
        self.memory: Any = alloc(nbytes)
        self._bytes = torch.frombuffer(self.memory, dtype=torch.uint8)

    @classmethod
    def with_room(cls, form: bytes, small: int, values: int) -> Self:
        """Makes one for a form, so many bytes of small tensors and so many of values, and for more."""
        nbytes = _places(len(form), small)[1] + values
        made = cls(max(_LEAST, _up(_SPARE * nbytes, _BLOCK)))
        made.arrange(form, small, values)
        return made

    def arrange(self, form: bytes, small: int, values: int) -> bool:
        """Puts another form in the place of the last one, if there is room. Ask for slots anew then."""
        small_at, values_at = _places(len(form), small)
        if values_at + values > len(self.memory):
            return False
        self.form, self._small = form, small
        self._small_at, self._values_at = small_at, values_at
        self._put(_HEADER.size, form)
        return True

    def fits(self, values: bytes) -> bool:
        """Whether there is room for them."""
        return self._values_at + len(values) <= len(self.memory)

    def slot(self, at: int, like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The place of a small tensor, as one."""
        start = self._small_at + at
        return self._bytes[start : start + like.numel() * dtype.itemsize].view(dtype).view(like.shape)

    def gathering(self, places: Sequence[tuple[int, int]]) -> Gathering:
        """Copies of small tensors to places: where each begins among them, and its bytes."""
        memory: Any = ffi.from_buffer("char[]", self.memory)
        at, lengths = zip(*places, strict=True) if places else ((), ())
        return Gathering([memory + self._small_at + start for start in at], lengths)

    def write(self, values: bytes) -> None:
        """Writes the values; bytes that are there already are not written."""
        self._put(self._values_at, values)
        self._put(0, _HEADER.pack(len(self.form), self._small, len(values), _VERSION))

    def _put(self, at: int, data: bytes) -> None:
        if self.memory[at : at + len(data)] != data:
            self.memory[at : at + len(data)] = data


class Gathering:
    """Copies memory to places that stay, from wherever it is. Of thousands of pieces, each of a few bytes."""

    def __init__(self, targets: Sequence[Any], lengths: Sequence[int]) -> None:
        """To pointers, so many bytes each."""
        self._targets, self._lengths = targets, lengths
        self._addresses: list[int] = []
        self._sources: list[Any] = []

    def copy(self, addresses: list[int]) -> bool:
        """Copies what is at these addresses, in the order of the places.

        Returns:
            Whether all of them are those of memory.
        """
        if addresses != self._addresses:
            if not all(addresses):
                return False
            self._sources = [ffi.cast("char *", address) for address in addresses]
            self._addresses = addresses
        collections.deque(map(ffi.memmove, self._targets, self._sources, self._lengths), maxlen=0)
        return True


def aligned(nbytes: int) -> int:
    """How many bytes a small tensor takes."""
    return _up(nbytes, _ALIGNMENT)


def unpack(read: Callable[[int, int], bytes]) -> tuple[bytes, bytes, bytes]:
    """The form, the small tensors and the values, of what *read* gives of bytes [start, stop).

    Raises:
        ValueError: it is something else.
    """
    form, small, values, version = _HEADER.unpack(read(0, _HEADER.size))
    if version != _VERSION:
        raise ValueError(f"it was written by a later version ({version})")
    small_at, values_at = _places(form, small)
    return (
        read(_HEADER.size, _HEADER.size + form),
        read(small_at, small_at + small),
        read(values_at, values_at + values),
    )


def _places(form: int, small: int) -> tuple[int, int]:
    # Where the small tensors begin, and the values.
    small_at = _up(_HEADER.size + form, _BLOCK)
    return small_at, _up(small_at + small, _BLOCK)


def _up(nbytes: int, unit: int) -> int:
    return -(-nbytes // unit) * unit
