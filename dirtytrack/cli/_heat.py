"""Heat bars for the terminal: which part of a region was written, one character per stretch of pages.

Needs nothing but the standard library.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from typing import TextIO

_BLOCKS = " ░▒▓█"
_ASCII = " .:-=+*#%@"
_COLOURS = (88, 124, 160, 196, 202, 208, 214, 220, 226)  # of the 256-colour palette: dark red to yellow
_NARROWEST = 64  # columns; below that a line would wrap, and a wrapped line cannot be redrawn in place


def heat(mask: memoryview, cells: int) -> Iterator[float]:
    """Yield, for each of *cells* equal stretches of *mask* (one byte per page), the fraction that is set."""
    pages = len(mask)
    for cell in range(cells):
        start = cell * pages // cells
        stop = max(start + 1, (cell + 1) * pages // cells)
        yield 1 - bytes(mask[start:stop]).count(0) / (stop - start)


class Screen:
    """A stream to draw lines on, and what it can show.

    A terminal gets block characters, colour (unless ``NO_COLOR`` is set) and lines redrawn in place; anything
    else gets every finished line once, in ASCII.

    Attributes:
        is_live: whether ``update`` draws anything.
        columns: the width to fill.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        capable = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.columns = min(shutil.get_terminal_size((100, 24)).columns, 160)
        self.is_live = capable and self.columns >= _NARROWEST
        self._is_coloured = capable and not os.environ.get("NO_COLOR")
        self._shades = _BLOCKS if capable and _can_encode(stream, _BLOCKS) else _ASCII

    def bar(self, mask: memoryview, cells: int) -> str:
        """Draw *mask* (one byte per page) as *cells* characters, from blank (clean) to full (all written)."""
        top = len(self._shades) - 1
        drawn: list[str] = []
        current = 0
        for fraction in heat(mask, cells):
            colour = _COLOURS[math.ceil(fraction * (len(_COLOURS) - 1))] if fraction else 0
            if self._is_coloured and colour != current:
                drawn.append(f"\x1b[38;5;{colour}m" if colour else "\x1b[0m")
                current = colour
            drawn.append(self._shades[math.ceil(fraction * top)])
        if current:
            drawn.append("\x1b[0m")
        return "".join(drawn)

    def update(self, line: str) -> None:
        """Redraw the current line; on a stream that cannot, do nothing."""
        if self.is_live:
            self._stream.write(f"\r{line}\x1b[K")
            self._stream.flush()

    def line(self, line: str = "") -> None:
        """Finish the current line as *line*."""
        self._stream.write(f"\r{line}\x1b[K\n" if self.is_live else f"{line}\n")
        self._stream.flush()


def _can_encode(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
