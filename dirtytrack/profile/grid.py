"""Memory by time, as numbers to be drawn."""

from __future__ import annotations

from dirtytrack.profile.recording import Recording


def heat_map(recording: Recording, area: int, rows: int, columns: int) -> list[list[float]]:
    """Returns how often the pages of an area were written, in page-writes of a page in a second.

    Args:
        recording: the data.
        area: index of the area.
        rows: parts of its addresses, the lowest first.
        columns: parts of the time.

    Returns:
        A list of rows of so many columns. What several columns of the recording have in one part is averaged.
    """
    described = recording.areas[area]
    cells = -(-described.page_count // described.column_cell)
    step = recording.duration / columns if recording.duration else 1.0
    grid = [[0.0] * columns for _ in range(rows)]
    for column in recording.columns:
        length = max(column.stop - column.start, 1e-9)
        first = min(int(column.start / step), columns - 1)
        last = min(max(first, int(column.stop / step - 1e-9)), columns - 1)
        for start, stop, writes in column.counts.get(area, ()):
            low = start * rows // cells
            high = max(low + 1, -(-stop * rows // cells))
            for row in range(low, min(high, rows)):
                share = (min(stop, (row + 1) * cells / rows) - max(start, row * cells / rows)) * rows / cells
                rate = writes / described.column_cell / length * max(share, 0.0)
                for place in range(first, last + 1):
                    part = min(column.stop, (place + 1) * step) - max(column.start, place * step)
                    grid[row][place] += rate * max(part, 0.0) / step
    return grid


def hottest_areas(recording: Recording, limit: int) -> list[int]:
    """Returns the areas that were written most, at most so many, by address."""
    written = [index for index, area in enumerate(recording.areas) if area.writes and area.kind != "recorder"]
    written.sort(key=lambda index: -recording.areas[index].writes)
    return sorted(written[:limit], key=lambda index: recording.areas[index].address)
