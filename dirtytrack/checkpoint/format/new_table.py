"""The table of regions of a delta that has another one than its parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from dirtytrack.checkpoint.format.layout import Layout, check_table
from dirtytrack.checkpoint.format.structures import BLOCK, FormatError, block_count

Origins = Sequence[int | None]


class Succession(NamedTuple):
    """A table that follows another one.

    Attributes:
        layouts: its regions.
        origins: for each of them that is stored, the place of the region in the table before with which it
            goes on. None: it begins with zeros.
    """

    layouts: tuple[Layout, ...]
    origins: tuple[int | None, ...]


class _Other(NamedTuple):
    # A region that is not as the parent's table has it, and with which it goes on.
    layout: Layout
    origin: int | None


@dataclass(frozen=True)
class NewTable:
    """A table as it differs from the one before, as files have it.

    Its size in memory is that of its size in a file, whatever that says.
    """

    _items: tuple[int | _Other, ...]  # a number is a place in the table before: that region as it is there

    @classmethod
    def of(cls, before: Sequence[Layout], after: Sequence[Layout], origins: Origins) -> Self:
        """The one that makes *after* of *before*, by the origins of what is stored."""
        places = {origin: place for place, origin in enumerate(origins) if origin is not None}
        by_name = {layout.name: place for place, layout in enumerate(before)}
        items: list[int | _Other] = []
        for place, layout in enumerate(after):
            origin = origins[place] if layout.is_stored else by_name.get(layout.name)
            if origin is not None and _as_kept(before[origin], places) == layout:
                items.append(origin)
            else:
                items.append(_Other(layout, origin if layout.is_stored else None))
        return cls(tuple(items))

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """As a file describes it.

        Raises:
            FormatError: it is none.
        """
        if not isinstance(value, list):
            raise FormatError("its table of regions is no array")
        items: list[int | _Other] = []
        for item in value:
            if type(item) is int:
                items.append(_place(item))
                continue
            layout, origin = Layout.from_json(item), item.get("from")
            if layout.linear is not None:
                raise FormatError(f"its region {layout.name!r} is linear, and it is a delta")
            items.append(_Other(layout, None if origin is None else _place(origin)))
        return cls(tuple(items))

    def to_json(self) -> list[Any]:
        """The same for a file."""
        return [item if isinstance(item, int) else _described(*item) for item in self._items]

    def changes(self, before: Sequence[Layout]) -> bool:
        """Whether it is another one than that before."""
        return self._items != tuple(range(len(before)))

    def follow(self, before: Sequence[Layout]) -> Succession:
        """What it makes of the table before.

        Raises:
            FormatError: it does not fit that one, or makes no table of it.
        """
        layouts: list[Layout] = []
        origins: list[int | None] = []
        places: dict[int, int] = {}  # by the place there, for what is stored
        used: set[int] = set()
        for item in self._items:
            origin = item if isinstance(item, int) else item.origin
            if origin is not None and (origin in used or not origin < len(before)):
                raise FormatError("its table names a region of its parent's that there is not, or one twice")
            layout = _as_kept(before[item], places) if isinstance(item, int) else item.layout
            if layout is None:
                raise FormatError("its table keeps a region, and not the one that is the same memory")
            if isinstance(item, _Other) and origin is not None:
                _check_origin(layout, before[origin])
            if origin is not None:
                used.add(origin)
                places[origin] = len(layouts)
            if layout.is_stored:
                origins.append(origin)
            layouts.append(layout)
        check_table(layouts)
        return Succession(tuple(layouts), tuple(origins))


def common_blocks(one: int, other: int) -> int:
    """The blocks that have as many bytes in regions of two lengths: all if these are equal."""
    return block_count(one) if one == other else min(one, other) // BLOCK


def _check_origin(layout: Layout, origin: Layout) -> None:
    if not (layout.is_stored and origin.is_stored):
        raise FormatError(f"its region {layout.name!r} goes on with one, and both have to be stored for it")


def _as_kept(layout: Layout, places: Mapping[int, int]) -> Layout | None:
    # A region of the table before as it is in the one after; None: that has not the memory that it was.
    if layout.same_as is None:
        return layout.at(None) if layout.linear is not None else layout
    owner = places.get(layout.same_as)
    return None if owner is None else replace(layout, same_as=owner)


def _described(layout: Layout, origin: int | None) -> dict[str, Any]:
    described = layout.at(None).to_json()
    return described if origin is None else {**described, "from": origin}


def _place(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise FormatError("its table of regions has something else for a place")
    return value
