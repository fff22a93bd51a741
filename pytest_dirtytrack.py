"""For tests: a fixture that watches memory, and what a failing comparison of page sets looks like.

A module of its own, so that pytest does not load the library for those who don't ask for the fixture.
"""

from __future__ import annotations

import operator
import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Set
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from dirtytrack.snapshot import Diff, watch

_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SHOWN = 12


class MemoryWatch:
    """Fails a test that changes memory which it should leave alone. The fixture ``memory_watch`` is one."""

    @contextmanager
    def unchanged(self, *memories: object) -> Iterator[None]:
        """Fails the test if the block changes a byte of the memories. A store of the same value is no change.

        Args:
            *memories: what `dirtytrack.Session.track` takes. The failure shows the changed elements of numpy
                arrays, and the changed bytes of other memory.
        """
        __tracebackhide__ = True
        with _watch(memories) as found:
            yield
        if found:
            _fail(_said(found), found, memories)

    @contextmanager
    def dirty_at_most(self, limit: int | str, *memories: object) -> Iterator[None]:
        """Fails the test if the block changes more than *limit* bytes of the memories.

        Args:
            limit: a number of bytes, or text such as "100 B", "4 KiB", "1 MiB", "2 GiB".
            *memories: as for `unchanged`.
        """
        __tracebackhide__ = True
        most = _parse(limit)
        with _watch(memories) as found:
            yield
        if found.nbytes > most:
            _fail(f"{_said(found)}, more than {limit}", found, memories)


@pytest.fixture
def memory_watch() -> MemoryWatch:
    """Watch memory: ``with memory_watch.unchanged(a):``, ``with memory_watch.dirty_at_most("4 KiB", a):``."""
    return MemoryWatch()


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Shows how a page set and another set differ: by the pages that are in one of them only."""
    loaded = sys.modules.get("dirtytrack.tracking.pages")  # by whoever has a page set
    if loaded is None or op not in ("==", "<=", ">=", "<", ">"):
        return None
    if not (isinstance(left, Set) and isinstance(right, Set)):
        return None
    if not isinstance(left, loaded.PageSet) and not isinstance(right, loaded.PageSet):
        return None
    try:
        mine, theirs = ({operator.index(page) for page in side} for side in (left, right))
    except TypeError:  # a set of something else
        return None
    lines = [f"pages {_pages(mine)} {op} {_pages(theirs)}", ""]
    if mine - theirs:
        lines.append(f"Only in the left: {_pages(mine - theirs)}")
    if theirs - mine:
        lines.append(f"Only in the right: {_pages(theirs - mine)}")
    geometries = [side.geometry for side in (left, right) if isinstance(side, loaded.PageSet)]
    if geometries[0] != geometries[-1]:
        lines.append(f"Of regions that lie differently: {geometries[0]} and {geometries[-1]}")
    return lines


def _pages(pages: set[int]) -> str:
    shown = ", ".join(str(page) for page in sorted(pages)[:_SHOWN])
    return f"{{{shown}}}" if len(pages) <= _SHOWN else f"{{{shown}, and {len(pages) - _SHOWN} more}}"


def _watch(memories: tuple[object, ...]) -> watch:
    from dirtytrack.snapshot import watch

    return watch(*memories)


def _parse(limit: int | str) -> int:
    if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0:
        return limit
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(|B|KiB|MiB|GiB)", limit) if isinstance(limit, str) else None
    if match is None:
        raise ValueError(f'{limit!r} is no size: give bytes, or text such as "100 B", "4 KiB" or "1 MiB"')
    return int(float(match[1]) * _UNITS[match[2]])


def _said(found: Diff) -> str:
    return f"memory has changed in {found.nbytes} byte{'s' * (found.nbytes != 1)}"


def _fail(what: str, found: Diff, memories: tuple[object, ...]) -> NoReturn:
    lines: list[str] = []
    total = 0
    for name, memory in zip(found.sizes, memories, strict=True):
        places = _places(found, name)
        count, shown = (
            _elements(found, name, memory) if places and _has_elements(memory) else _bytes(found, places)
        )
        lines += (f"  memory {name}{line}" for line in islice(shown, _SHOWN - len(lines)))
        total += count
    more = [f"  and {total - len(lines)} more"] if total > len(lines) else []
    pytest.fail("\n".join([f"{what}:", *lines, *more]), pytrace=False)


# There may be millions of changes: what is not shown is only counted.


def _places(found: Diff, name: str) -> range:
    order = {region: place for place, region in enumerate(found.sizes)}

    def key(change: Any) -> int:
        return order[change.region]

    return range(bisect_left(found, order[name], key=key), bisect_right(found, order[name], key=key))


def _bytes(found: Diff, places: range) -> tuple[int, Iterator[str]]:
    def show(data: memoryview) -> str:
        return data[:8].hex(" ") + "..." * (len(data) > 8)

    changes = map(found.__getitem__, places)
    lines = (f", bytes [{one.start}, {one.stop}): {show(one.before)} -> {show(one.after)}" for one in changes)
    return len(places), lines


def _has_elements(memory: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(memory, numpy.ndarray) and memory.flags.forc


def _elements(found: Diff, name: str, array: Any) -> tuple[int, Iterator[str]]:
    before = array.copy(order="K")
    others = {one: bytearray(nbytes) for one, nbytes in found.sizes.items() if one != name}
    found.invert().apply({name: before, **others})
    indices = found.elements(array, name).indices
    if not indices:
        return 1, iter([f": {before} -> {array}"])
    places = zip(*indices, strict=True)
    return len(indices[0]), (f"{[int(at) for at in one]}: {before[one]} -> {array[one]}" for one in places)
