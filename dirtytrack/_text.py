"""Text for people: sizes and times, and what files or users have named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

_SHADES = " .:-=+*#%@"


def size(nbytes: int) -> str:
    """A number of bytes, as in "1.5 MiB"."""
    if nbytes < 1024:
        return f"{nbytes} B"
    value, unit = nbytes / 1024, "K"
    for larger in "MGTPE":
        if value < 1023.95:  # else it would be shown as 1024.0
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}iB"


def several(given: Iterable[str], what: str) -> tuple[str, ...]:
    """What an argument lists; *what* that is, for messages.

    Raises:
        TypeError: it is one str, whose letters would be taken for several, or not all are str.
    """
    if isinstance(given, str):
        raise TypeError(f"{what} are a list of str, not the one {given!r}: [{given!r}]")
    found = tuple(given)
    for one in found:
        if not isinstance(one, str):
            raise TypeError(f"{what} are a list of str, and {one!r} is none")
    return found


def duration(seconds: float) -> str:
    """A time, as in "1.5 ms" or "2.0 h"."""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (0.9995, 1e3, "ms"), (120, 1, "s"), (7200, 1 / 60, "min")):
        if seconds < limit:
            value = seconds * factor
            return f"{value:.0f} {unit}" if value >= 100 or value == int(value) else f"{value:.1f} {unit}"
    return f"{seconds / 3600:.1f} h"


def count(number: int, noun: str) -> str:
    """So many of something, as in "2 files"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: str) -> str:
    """The text with an escape sequence, as Python has it, for each character that is more than seen."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def plain(text: str) -> str:
    """The same in ASCII: any terminal and any pipe takes it."""
    return printable(text).encode("ascii", "backslashreplace").decode()


def heat_bar(fractions: Iterable[float]) -> str:
    """A character for each fraction, from blank (nothing) to "@" (all)."""
    return "".join(_SHADES[-int(-fraction * (len(_SHADES) - 1) // 1)] for fraction in fractions)


def columns(rows: Sequence[Sequence[str]], sides: str) -> Iterator[str]:
    """Rows as lines, each column as wide as its widest cell; sides are "<" and ">", one for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)]
        yield "  ".join(cells).rstrip()


def shorten(text: str, width: int) -> str:
    """The text if it fits so many columns, else its beginning."""
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."
