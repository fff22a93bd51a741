"""What a chain holds, as lines of text and as facts for JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from dirtytrack._text import count, plain, shorten, size
from dirtytrack.checkpoint import Chain, Checkpoint, Difference

Row = tuple[str, ...]

# Of a checkpoint, and of a state of a group.
MEASURES = ("created", "on disk", "", "written", "stored", "pause", "consistency", "meta")
SIDES = "><<><>>><<"  # to which the cells of such a line are aligned

_TITLES = ("checkpoint", "kind", *MEASURES)
_DIFFERENCES = ("region", "what", "blocks", "bytes", "elements")
_BLOCK = 4096
_BAR = 12  # characters
_LEAST_META = 16  # columns, also where the terminal is too narrow
_FOREVER = 1e6  # seconds; no pause is that long
_FACTS = ("number", "id", "parent", "kind", "created", "consistency", "meta", "statistics", "nbytes", "file")


def facts(checkpoint: Checkpoint, taken: dict[str, int]) -> dict[str, Any]:
    """All that is known of a checkpoint, *taken* being what each file takes on the disk."""
    return {
        **{name: getattr(checkpoint, name) for name in _FACTS},
        "disk_bytes": taken.get(checkpoint.file, 0),
        "regions": [layout.to_json() for layout in checkpoint.regions],
    }


def table(chain: Chain, taken: dict[str, int]) -> Iterator[str]:
    """A line for each checkpoint, its meta cut to the width of the terminal; then the sums."""
    most = max(taken.values(), default=0)
    yield from aligned(_TITLES, SIDES, [_row(checkpoint, taken, most) for checkpoint in chain])
    yield f"{count(len(chain), 'checkpoint')}; {on_disk(taken)}"
    if len(chain):
        yield listed([(layout.name, layout.nbytes, layout.is_stored) for layout in chain.newest.regions])


def aligned(titles: Row, sides: str, rows: Sequence[Row]) -> Iterator[str]:
    """A line for the titles and one for each row; the last column is cut to the width of the terminal."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    room = max(_LEAST_META, _columns() - sum(widths[:-1]) - 2 * len(widths[:-1]))
    for *cells, meta in (titles, *rows):
        line = [f"{cell:{side}{width}}" for cell, side, width in zip(cells, sides, widths, strict=False)]
        yield "  ".join([*line, shorten(meta, room)])


def on_disk(taken: dict[str, int]) -> str:
    """What files take."""
    return f"{size(sum(taken.values()))} on disk in {count(len(taken), 'file')}"


def listed(regions: Sequence[tuple[str, int, bool]]) -> str:
    """Regions with their bytes, and whether those are stored; cut to the width of the terminal."""
    names = ", ".join(f"{json.dumps(name)} {size(nbytes)}" for name, nbytes, _ in regions)
    total = size(sum(nbytes for _, nbytes, is_stored in regions if is_stored))
    return shorten(f"{count(len(regions), 'region')}, {total}: {names}", _columns())


def compacted(begins: str, removed: Sequence[str], taken: int, freed: int) -> Iterator[str]:
    """What was removed, where it begins now, and what it takes."""
    yield from (f"removed {name}" for name in removed)
    change = "less" if freed >= 0 else "more"
    yield f"{begins}. It takes {size(taken)} on disk, {size(abs(freed))} {change} than before."


def difference(found: Difference) -> dict[str, Any]:
    """A region that differs, for JSON."""
    counts = {name: getattr(found, name) for name in ("blocks", "nbytes", "elements")}
    return {"region": found.name, "kind": found.kind, **counts}


def differences(before: Checkpoint, after: Checkpoint, found: Sequence[Difference]) -> Iterator[str]:
    """A line for each region that differs; then between which checkpoints."""
    if found:
        rows = [_DIFFERENCES, *map(_difference, found)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
    total = count(len({layout.name for one in (before, after) for layout in one.regions}), "region")
    yield f"{len(found)} of {total} differ between checkpoint {title(before)} and {title(after)}."


def problems(chain: Chain) -> Iterator[str]:
    """A line for each file that can't be used, and one above them; none if there is no such file."""
    if chain.problems:
        yield f"{count(len(chain.problems), 'file')} can't be used:"
    for problem in chain.problems:
        yield f"  {problem.file}: {plain(problem.reason)}"


def title(checkpoint: Checkpoint) -> str:
    """Which checkpoint it is, for a sentence."""
    return f"{checkpoint.number} of {when(checkpoint.created)} ({checkpoint.consistency})"


def _difference(found: Difference) -> Row:
    name = json.dumps(found.name)
    layout = found.after or found.before
    assert layout is not None
    if found.kind in ("added", "removed"):
        return name, found.kind, "", size(layout.nbytes), ""
    if not found.blocks:
        assert found.before is not None
        return name, found.kind, "", f"{size(found.before.nbytes)}, now {size(layout.nbytes)}", ""
    blocks = f"{found.blocks} of {-(-layout.nbytes // _BLOCK)}"
    return name, found.kind, blocks, size(found.nbytes), str(found.elements)


def _row(checkpoint: Checkpoint, taken: dict[str, int], most: int) -> Row:
    nbytes = taken.get(checkpoint.file, 0)
    return (
        str(checkpoint.number),
        checkpoint.kind,
        when(checkpoint.created),
        size(nbytes),
        bar(nbytes, most),
        *(amount(blocks(checkpoint, key)) for key in ("blocks_written", "blocks_stored")),
        lasting(pause(checkpoint)),
        checkpoint.consistency,
        json.dumps(checkpoint.meta),
    )


def bar(nbytes: int, most: int) -> str:
    """As long as so many bytes are beside the most."""
    return "#" * -(-nbytes * _BAR // (most or 1))


# Of the statistics, which may say anything, what can be true.
def blocks(checkpoint: Checkpoint, key: str) -> int | None:
    """Of a save, those that were written or stored."""
    number: Any = checkpoint.statistics.get(key)
    return number if type(number) is int and 0 <= number < 1 << 62 else None


def pause(checkpoint: Checkpoint) -> float | None:
    """Of a save, in seconds."""
    seconds: Any = checkpoint.statistics.get("pause")
    return seconds if type(seconds) in (int, float) and 0 <= seconds < _FOREVER else None


def amount(number: int | None) -> str:
    """A number, if it is known."""
    return "-" if number is None else str(number)


def lasting(seconds: float | None) -> str:
    """A time, if it is known."""
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def when(seconds: float) -> str:
    """A time since 1970."""
    try:
        return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):  # beyond any calendar
        return f"{seconds:g} s"


def _columns() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
