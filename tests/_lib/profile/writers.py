"""Functions that write known pages: what a profile has to charge to them."""

from __future__ import annotations

import mmap
from collections.abc import AsyncIterator, Iterator

from _lib.support import PAGE_SIZE

# The memory that they write to, put there by the test.
memory: mmap.mmap | None = None


def store(*pages: int) -> None:
    """Change one byte on each page."""
    assert memory is not None
    for page in pages:
        memory[page * PAGE_SIZE + 9] ^= 0x5A


def first() -> None:
    """Writes pages 0 to 3."""
    store(0, 1, 2, 3)


def second() -> None:
    """Writes page 10 around a call of `first`."""
    store(10)
    first()
    store(10, 11)


def fails() -> None:
    """Writes page 20, and raises."""
    store(20)
    raise RuntimeError("on purpose")


def countdown(number: int) -> None:
    """Calls itself, and writes a page each time."""
    store(30 + number)
    if number:
        countdown(number - 1)


def steps() -> Iterator[int]:
    """A generator that writes a page in each step."""
    store(40)
    yield 1
    store(41)
    try:
        yield 2
    except KeyError:
        store(42)
    yield 3


async def chunks() -> AsyncIterator[int]:
    """An asynchronous generator that writes a page in each step."""
    store(50)
    yield 1
    store(51)


class Model:
    """Methods of each kind."""

    def step(self) -> None:
        """Writes page 60."""
        store(60)

    @staticmethod
    def reset() -> None:
        """Writes page 61."""
        store(61)

    @classmethod
    def build(cls) -> type[Model]:
        """Writes page 62."""
        store(62)
        return cls
