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

_TITLES = (
    "checkpoint",
    "kind",
    "created",
    "on disk",
    "",
    "written",
    "stored",
    "pause",
    "consistency",
    "meta",
)
_DIFFERENCES = ("region", "what", "blocks", "bytes", "elements")
_BLOCK = 4096
_SIDES = "><<><>>><<"
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
    most = max(taken.values(), default=0) or 1
    rows = [_TITLES, *(_row(checkpoint, taken, most) for checkpoint in chain)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    room = max(_LEAST_META, columns - sum(widths[:-1]) - 2 * len(widths[:-1]))
    for *cells, meta in rows:
        aligned = [f"{cell:{side}{width}}" for cell, side, width in zip(cells, _SIDES, widths, strict=False)]
        yield "  ".join([*aligned, shorten(meta, room)])
    on_disk = f"{size(sum(taken.values()))} on disk in {count(len(taken), 'file')}"
    yield f"{count(len(chain), 'checkpoint')}; {on_disk}"
    if len(chain):
        regions = chain.newest.regions
        names = ", ".join(f"{json.dumps(layout.name)} {size(layout.nbytes)}" for layout in regions)
        total = size(sum(layout.nbytes for layout in regions if layout.is_stored))
        yield shorten(f"{count(len(regions), 'region')}, {total}: {names}", columns)


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
    return f"{checkpoint.number} of {_time(checkpoint.created)} ({checkpoint.consistency})"


def _difference(found: Difference) -> tuple[str, ...]:
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


def _row(checkpoint: Checkpoint, taken: dict[str, int], most: int) -> tuple[str, ...]:
    # Of the statistics, which may say anything, what can be true.
    blocks = [checkpoint.statistics.get(key) for key in ("blocks_written", "blocks_stored")]
    return (
        str(checkpoint.number),
        checkpoint.kind,
        _time(checkpoint.created),
        size(taken.get(checkpoint.file, 0)),
        "#" * -(-taken.get(checkpoint.file, 0) * _BAR // most),
        *(str(number) if type(number) is int and 0 <= number < 1 << 62 else "-" for number in blocks),
        _pause(checkpoint.statistics.get("pause")),
        checkpoint.consistency,
        json.dumps(checkpoint.meta),
    )


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):  # beyond any calendar
        return f"{seconds:g} s"


def _pause(seconds: Any) -> str:
    if type(seconds) not in (int, float) or not 0 <= seconds < _FOREVER:
        return "-"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"
