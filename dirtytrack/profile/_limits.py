"""How much a recording has at most: whoever adds one up keeps to it, and whoever reads one insists on it."""

from __future__ import annotations

from dirtytrack._text import shorten

AREAS = 4096
PHASES = 512
TALLIES = 1 << 16  # of all phases together
COLUMNS = 256
CELLS = 1 << 16  # of an area's counts
COLUMN_CELLS = 128  # of an area, in a column
COUNTS = 1 << 17  # runs of counts, of all areas together
COLUMN_COUNTS = 1 << 17  # the same, of all columns together
PROCESSES = 257  # the program and its forked children
WORKING_SETS = 64
NOTES = 64
AXES = 64
NAME = 250  # characters of an area's name
TEXT = 1000  # of any other text


def clean(text: str, most: int = TEXT) -> str:
    """A text as a recording may have it: not too long, and all of it characters."""
    return shorten(text.encode("utf-8", "backslashreplace").decode(), most)
