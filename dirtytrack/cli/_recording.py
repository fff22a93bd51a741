"""A recording on a terminal, by rich: tables, and memory by time as a map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dirtytrack._text import duration, plain, shorten
from dirtytrack.profile import Recording, table
from dirtytrack.profile.grid import heat_map, hottest_areas

_AREAS = 12
_LINES = 2  # of an area; each shows two parts of its addresses
_NAME = 20  # columns
_SHADES = " .:-=+*#%@"
_COLOURS = ("#3b0f0a", "#6e1a0e", "#a3290f", "#d24a14", "#ef7f1f", "#f9b93a", "#fdf09b")


def show(recording: Recording, stream: TextIO) -> None:
    """Prints all of it, as wide as the terminal."""
    console = Console(file=stream, highlight=False)
    console.print(Text(table.heading(recording), style="bold"))
    console.print()
    _print_table(console, table.phase_rows(recording), left=2)
    _print_map(console, recording)
    _print_table(console, table.hottest_rows(recording), left=2)
    _print_table(console, table.working_set_rows(recording), left=1)
    for note in recording.notes:
        console.print(Text(plain(note), style="dim"))


def _print_table(console: Console, rows: Sequence[Sequence[str]], left: int) -> None:
    if not rows:
        return
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for place, title in enumerate(rows[0]):
        shown.add_column(Text(title), justify="left" if place < left else "right", overflow="ellipsis")
    for row in rows[1:]:
        shown.add_row(*(Text(cell) for cell in row))
    console.print(shown)
    console.print()


def _print_map(console: Console, recording: Recording) -> None:
    columns = max(20, console.width - _NAME - 1)
    areas = hottest_areas(recording, _AREAS)
    grids = {area: heat_map(recording, area, 2 * _LINES, columns) for area in areas}
    hottest = max((value for grid in grids.values() for row in grid for value in row), default=0.0)
    for area in areas:
        name = plain(shorten(recording.areas[area].name, _NAME))
        for line in range(_LINES):
            upper, lower = grids[area][2 * line : 2 * line + 2]
            text = Text(f"{name if line == 0 else '':{_NAME}} ")
            for above, below in zip(upper, lower, strict=True):
                text.append_text(_cell(console, _level(above, hottest), _level(below, hottest)))
            console.print(text, no_wrap=True, crop=True)
    if areas:
        end = duration(recording.duration)
        console.print(Text(f"{'':{_NAME}} 0 s{end:>{columns - 3}}", style="dim"))
        console.print()


def _level(value: float, hottest: float) -> float:
    return math.log1p(value) / math.log1p(hottest) if hottest else 0.0


def _cell(console: Console, above: float, below: float) -> Text:
    # One character for two parts of the addresses, if there are colours and such characters.
    if console.no_color or console.color_system is None or not _has_blocks(console):
        return Text(_SHADES[math.ceil(max(above, below) * (len(_SHADES) - 1))])
    upper, lower = _colour(above), _colour(below)
    if upper is None and lower is None:
        return Text(" ")
    if upper is None:
        return Text("\u2584", style=f"{lower}")
    return Text("\u2580", style=f"{upper} on {lower}" if lower else f"{upper}")


def _colour(level: float) -> str | None:
    return _COLOURS[min(int(level * len(_COLOURS)), len(_COLOURS) - 1)] if level else None


def _has_blocks(console: Console) -> bool:
    try:
        "\u2580\u2584".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
