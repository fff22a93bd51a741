"""A fixture for tests that a function leaves memory alone, or nearly so.

A module of its own, so that pytest does not load the library for those who don't ask for the fixture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from dirtytrack.snapshot import Diff

_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SHOWN = 12


class Watcher:
    """What the fixture ``dirtytrack`` gives."""

    @contextmanager
    def unchanged(self, *memories: object) -> Iterator[None]:
        """Fails the test if the block changes a byte of the memories; those written but as before are none.

        Args:
            *memories: what `dirtytrack.Session.track` takes; of arrays the changed elements are shown.
        """
        __tracebackhide__ = True
        with self._watched(memories) as found:
            yield
        if found:
            _fail(f"memory has changed, {found.nbytes} bytes of it", found, memories)

    @contextmanager
    def dirty_at_most(self, limit: int | str, *memories: object) -> Iterator[None]:
        """Fails the test if the block changes more than so many bytes of the memories.

        Args:
            limit: bytes, or text as "100 B", "4 KiB", "1 MiB", "2 GiB".
            *memories: as for `unchanged`.
        """
        __tracebackhide__ = True
        most = _parse(limit)
        with self._watched(memories) as found:
            yield
        if found.nbytes > most:
            _fail(f"{found.nbytes} bytes of memory have changed, more than {limit}", found, memories)

    def _watched(self, memories: tuple[object, ...]) -> Any:
        from dirtytrack.snapshot import watch

        return watch(*memories)


@pytest.fixture
def dirtytrack() -> Watcher:
    """Watches: ``with dirtytrack.unchanged(array):``, ``with dirtytrack.dirty_at_most("4 KiB", a):``."""
    return Watcher()


def _parse(limit: int | str) -> int:
    if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0:
        return limit
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(|B|KiB|MiB|GiB)", limit) if isinstance(limit, str) else None
    if match is None:
        raise ValueError(f'{limit!r} is no size: give bytes, or text such as "100 B", "4 KiB" or "1 MiB"')
    return int(float(match[1]) * _UNITS[match[2]])


def _fail(what: str, found: Diff, memories: tuple[object, ...]) -> NoReturn:
    lines: list[str] = []
    for name, memory in zip(found.sizes, memories, strict=True):
        lines += _elements(found, name, memory) if hasattr(memory, "dtype") else _bytes(found, name)
    more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    pytest.fail("\n".join([f"{what}:", *lines[:_SHOWN], *more]), pytrace=False)


def _bytes(found: Diff, name: str) -> list[str]:
    def show(data: memoryview) -> str:
        return data[:8].hex(" ") + "..." * (len(data) > 8)

    return [
        f"  memory {name}, bytes [{one.start}, {one.stop}): {show(one.before)} -> {show(one.after)}"
        for one in found.of(name)
    ]


def _elements(found: Diff, name: str, array: Any) -> list[str]:
    import numpy as np

    before = np.copy(array, order="K")
    others = {one: bytearray(nbytes) for one, nbytes in found.sizes.items() if one != name}
    found.invert().apply({name: before, **others})
    if not array.ndim:
        return [f"  memory {name}: {before} -> {array}"] * bool(found.of(name))
    places = zip(*found.elements(array, name).indices, strict=True)
    return [
        f"  memory {name}{[int(at) for at in place]}: {before[place]} -> {array[place]}" for place in places
    ]
