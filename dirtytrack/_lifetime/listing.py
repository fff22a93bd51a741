"""Lists of what comes and goes."""

from __future__ import annotations

from typing import TypeVar

_Value = TypeVar("_Value")


def values_of(table: dict[object, _Value] | dict[int, _Value] | dict[str, _Value]) -> list[_Value]:
    """The values of a dictionary at one moment, whatever threads, signal handlers and destructors do to it.

    This is one step, with and without the GIL. ``dict.copy`` is none in Python 3.11: garbage may be collected
    in its middle, and if a destructor changes the dictionary then, the copy is broken. Nor is ``tuple``.
    """
    return list(table.values())
