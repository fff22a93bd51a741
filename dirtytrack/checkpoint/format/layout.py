"""What a region of a chain is: its name, its length, its elements, and whether memory fits it."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from dirtytrack.checkpoint.format.structures import LINEAR_ALIGNMENT, FormatError, shortened
from dirtytrack.objects import Description, Elements, ElementType, title_of

if TYPE_CHECKING:
    import numpy as np

MAX_NAME_BYTES = 255

_MAX_CODE = 255  # characters of a dtype that is no structure; numpy has a dozen


@dataclass(frozen=True)
class Layout:
    """One region of a chain.

    Attributes:
        name: unique in its chain.
        nbytes: its length in bytes, which may be 0.
        dtype: the type of its elements, as `Elements` has it; None: plain bytes, which fit any.
        shape: lengths of the axes; None if dtype is.
        order: of the axes, as `Elements` has it.
        page_size: bytes in a page of the memory it was taken from; no part of the comparison.
        linear: offset in the file at which a base holds it as memory has it; None: it does not.
        same_as: place in the table of the region whose memory this one is, too; None: it is its own.
    """

    name: str
    nbytes: int
    dtype: ElementType | None
    shape: tuple[int, ...] | None
    order: tuple[int, ...] | None
    page_size: int
    linear: int | None = None
    same_as: int | None = None

    @classmethod
    def of(cls, name: str, memory: Description, page_size: int) -> Self:
        """The layout of memory that lies on pages of that size, in bytes."""
        dtype, shape, order = memory.elements or (None, None, None)
        return cls(name, memory.nbytes, dtype, shape, order, page_size)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """A layout as a file describes it.

        Raises:
            FormatError: it is none.
        """
        try:
            layout = cls(
                check_name(value["name"]),
                _natural(value["nbytes"], 0),
                value["dtype"],
                _naturals(value["shape"]),
                _naturals(value["order"]),
                _natural(value["page_size"], 1),
                None if value.get("linear") is None else _natural(value["linear"], 0),
                None if value.get("same_as") is None else _natural(value["same_as"], 0),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise FormatError(f"its table of regions holds something else ({what})") from None
        if layout.linear is not None and layout.linear % LINEAR_ALIGNMENT:
            raise FormatError(f"its region {layout.name!r} lies at {layout.linear}, which can't be mapped")
        if not isinstance(layout.dtype, str | dict | None) or (layout.dtype is None) != (
            layout.shape is None
        ):
            raise FormatError(f"its region {layout.name!r} has elements of no known kind")
        if isinstance(layout.dtype, str) and len(layout.dtype) > _MAX_CODE:
            raise FormatError(f"its region {layout.name!r} has a dtype of {len(layout.dtype)} characters")
        return layout

    def to_json(self) -> dict[str, Any]:
        """As a file describes it."""
        optional = ("linear", "same_as")
        return {key: value for key, value in vars(self).items() if key not in optional or value is not None}

    @property
    def is_stored(self) -> bool:
        """Whether files hold bytes of it: it has some, and they are not another region's."""
        return self.nbytes > 0 and self.same_as is None

    @property
    def identity(self) -> tuple[object, ...]:
        """What may not differ between two files of one checkpoint."""
        return self.name, self.nbytes, repr(self.dtype), self.shape, self.order, self.same_as

    def mismatch(self, other: Layout) -> str | None:
        """Why memory of layout *other* can't take the contents of this region; None if it can."""
        title = f"region {self.name!r}"
        if self.nbytes != other.nbytes:
            return f"{title} has {self.nbytes} bytes, and the memory given for it {other.nbytes}"
        if self.dtype is None or other.dtype is None:
            return None
        if self.dtype != other.dtype:
            mine, theirs = _title(self.dtype), _title(other.dtype)
            return f"{title} has the dtype {mine}, and the memory given for it {theirs}"
        if self.shape != other.shape:
            mine, theirs = (shortened(str(one)) for one in (self.shape, other.shape))
            return f"{title} has the shape {mine}, and the memory given for it {theirs}"
        if self.order != other.order:
            mine, theirs = (
                f"axes in the order {shortened(str(one))}" if one else "axes in C order"
                for one in (self.order, other.order)
            )
            return f"{title} has {mine}, and the memory given for it {theirs}"
        return None

    def array(self, buffer: Any) -> np.ndarray[Any, Any]:
        """A numpy array on a buffer with the region's bytes.

        Raises:
            FormatError: what the file says of its elements is impossible.
        """
        import numpy as np

        if self.dtype is None:
            return np.ndarray(self.nbytes, np.uint8, buffer)
        try:
            return Elements(self.dtype, self.shape or (), self.order).array(buffer)
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError, SyntaxError) as error:
            raise FormatError(f"its region {self.name!r} describes no array: {error}") from None

    def at(self, linear: int | None) -> Layout:
        """The same, laid out at that offset of a base."""
        return replace(self, linear=linear)


def stored(table: Sequence[Layout]) -> tuple[Layout, ...]:
    """The regions of a table of which files hold bytes: they come before the others."""
    return tuple(layout for layout in table if layout.is_stored)


def check_table(table: Sequence[Layout]) -> None:
    """Checks what the regions of a table have to do with each other.

    Raises:
        FormatError: it can't be a table.
    """
    if len({layout.name for layout in table}) != len(table) or not table:
        raise FormatError("its table of regions is empty, or a name is in it twice")
    own = stored(table)
    for layout in table[len(own) :]:
        if layout.is_stored or layout.linear is not None:
            raise FormatError(f"its region {layout.name!r} has bytes, and comes after those that have none")
        if layout.same_as is not None and (
            layout.same_as >= len(own) or own[layout.same_as].nbytes != layout.nbytes
        ):
            raise FormatError(f"its region {layout.name!r} is the memory of a region that there is not")
    end = 0
    for layout in own:
        if layout.linear is not None:
            if layout.linear < end:
                raise FormatError(f"its region {layout.name!r} lies on another one")
            end = layout.linear + layout.nbytes


def groups_of(table: Sequence[Layout]) -> dict[str, frozenset[str]]:
    """For each region the names of all that are one memory with it, its own among them."""
    groups: dict[str, list[str]] = {}
    for layout in table:
        owner = layout if layout.same_as is None else table[layout.same_as]
        groups.setdefault(owner.name, []).append(layout.name)
    return {name: group for group in map(frozenset, groups.values()) for name in group}


def check_name(name: object) -> str:
    """The name, if it can be that of a region.

    Raises:
        TypeError: it is not a str.
        ValueError: it is empty, too long, or not text.
    """
    if not isinstance(name, str):
        raise TypeError(f"a region's name is a str, not {reprlib.repr(name)}")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"the name {name!r} can't be written as UTF-8") from None
    if not 1 <= length <= MAX_NAME_BYTES:
        raise ValueError(f"a region's name has 1 to {MAX_NAME_BYTES} bytes, and {name[:40]!r} has {length}")
    return name


def _title(dtype: ElementType) -> str:
    # That of a file may be anything.
    try:
        return shortened(title_of(dtype))
    except (LookupError, TypeError, AttributeError, RecursionError):
        return "of no known kind"


def _natural(value: Any, least: int) -> int:
    if type(value) is not int or not least <= value < 1 << 62:
        raise ValueError("a number that it can't have")
    return value


def _naturals(value: Any) -> tuple[int, ...] | None:
    return None if value is None else tuple(_natural(item, 0) for item in value)
