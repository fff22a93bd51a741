"""What a group holds, as lines of text and as facts for JSON: of each state what its parts add up to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from dirtytrack._text import count, size
from dirtytrack.checkpoint import Checkpoint
from dirtytrack.cli import _report
from dirtytrack.group import GroupChain, GroupCheckpoint

_TITLES = ("state", "parts", *_report.MEASURES)


class Parts(NamedTuple):
    """What states stand on.

    Attributes:
        of: the checkpoints that are parts of a state, by its number; those that can't be used are missing.
        disk_bytes: of the files of a state's own checkpoints, by its number.
        files: what each file of the chains takes, by its place below the group's.
        problems: a line for each file that can't be used.
    """

    of: dict[int, list[Checkpoint]]
    disk_bytes: dict[int, int]
    files: dict[str, int]
    problems: list[str]


def parts_of(chain: GroupChain) -> Parts:
    """Opens each chain once.

    Raises:
        ChainError, OSError: as `GroupChain.open_part`.
    """
    found = Parts({one.number: [] for one in chain}, dict.fromkeys((one.number for one in chain), 0), {}, [])
    wanted: dict[str, list[tuple[int, str]]] = {}
    first = {part.folder: part for state in chain for part in state.parts}
    for state in chain:
        for part in state.parts:
            wanted.setdefault(part.folder, []).append((state.number, part.id))
    for folder, ids in wanted.items():
        with chain.open_part(first[folder]) as opened:
            taken = opened.disk_usage()
            found.files.update((f"{folder}/{name}", nbytes) for name, nbytes in taken.items())
            found.problems.extend(_report.problems(opened))
            known = {one.id: one for one in opened}
        for number, identifier in ids:
            if (checkpoint := known.get(identifier)) is not None:
                found.of[number].append(checkpoint)
                found.disk_bytes[number] += taken.get(checkpoint.file, 0)
    return found


def facts(state: GroupCheckpoint, parts: Parts) -> dict[str, Any]:
    """All that is known of a state, for JSON."""
    checkpoints = [
        {"id": one.id, "kind": one.kind, "nbytes": one.nbytes, "consistency": one.consistency}
        | {"created": one.created, "statistics": one.statistics, "file": one.file}
        for one in parts.of[state.number]
    ]
    return {"disk_bytes": parts.disk_bytes[state.number], "checkpoints": checkpoints}


def table(chain: GroupChain, parts: Parts) -> Iterator[str]:
    """A line for each state, its meta cut to the width of the terminal; then the sums."""
    most = max(parts.disk_bytes.values())
    yield from _report.aligned(_TITLES, _report.SIDES, [_row(state, parts, most) for state in chain])
    yield f"{count(len(chain), 'state')}; {_report.on_disk(parts.files)}"
    newest = [layout for one in parts.of[chain.newest.number] for layout in one.regions]
    yield _report.listed([(one.name, one.nbytes, one.is_stored) for one in newest])
    yield from parts.problems


def _row(state: GroupCheckpoint, parts: Parts, most: int) -> _report.Row:
    own, nbytes = parts.of[state.number], parts.disk_bytes[state.number]
    kinds: Counter[str] = Counter(one.kind for one in own)
    kinds["missing"] = len(state.parts) - len(own)
    pauses = [seconds for one in own if (seconds := _report.pause(one)) is not None]
    return (
        str(state.number),
        ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number),
        _report.when(state.created),
        size(nbytes),
        _report.bar(nbytes, most),
        *(_report.amount(_sum(own, key)) for key in ("blocks_written", "blocks_stored")),
        _report.lasting(max(pauses, default=None)),
        "/".join(sorted({one.consistency for one in own})) or "-",
        json.dumps(state.meta),
    )


def _sum(checkpoints: list[Checkpoint], key: str) -> int | None:
    numbers = [_report.blocks(one, key) for one in checkpoints]
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
