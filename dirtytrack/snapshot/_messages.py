"""What names look like in messages: a diff from elsewhere may have millions of them, or one of megabytes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

_MOST, _LONGEST = 5, 40


def quoted(name: str) -> str:
    """A name in quotes; a long one is cut."""
    return repr(name) if len(name) <= _LONGEST else f"{name[:_LONGEST]!r}..."


def listed(names: Iterable[str], count: int) -> str:
    """The first few of *count* names, and how many more there are."""
    more = f", and {count - _MOST} more" if count > _MOST else ""
    return ", ".join(map(quoted, islice(names, _MOST))) + more
