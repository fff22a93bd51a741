"""The file of a recording: JSON, compressed by gzip, as docs/profile.md describes it.

Whoever reads one trusts it with nothing: sizes are bounded before anything is made of them, and every number
is checked to be what the data model says it is.
"""

from __future__ import annotations

import errno
import gzip
import itertools
import json
import math
import os
import stat
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from dirtytrack._json import parse
from dirtytrack.errors import RecordingError
from dirtytrack.profile import _limits
from dirtytrack.profile.recording import (
    Area,
    Column,
    Count,
    Phase,
    Process,
    Recording,
    Share,
    Tally,
    WorkingSet,
)

VERSION = 1
_FORMAT = "dirtytrack recording"
_MODE = 0o600
_MOST_FILE = 32 << 20  # bytes of a file
_MOST_TEXT = 32 << 20  # bytes of its JSON
_MOST_MEMORY = 448 << 20  # bytes that its JSON takes as objects
_MOST = 1 << 62  # of any whole number
_CELLS = {"cell": _limits.CELLS, "column_cell": _limits.COLUMN_CELLS}

T = TypeVar("T")


def encode(recording: Recording) -> dict[str, Any]:
    """Returns a recording in terms that JSON can hold."""
    return {
        "format": _FORMAT,
        "version": VERSION,
        **{name: getattr(recording, name) for name in (*_HEAD, "kind")},
        "notes": list(recording.notes),
        "areas": [
            {
                **{name: getattr(area, name) for name in _AREA},
                "shape": area.shape,
                "counts": _flat(area.counts),
            }
            for area in recording.areas
        ],
        "phases": [
            {
                "name": phase.name,
                "collects": phase.collects,
                "seconds": phase.seconds,
                "process": phase.process,
                "tallies": [[one.area, one.writes, one.nbytes, one.distinct] for one in phase.tallies],
            }
            for phase in recording.phases
        ],
        "columns": [
            {
                "start": column.start,
                "stop": column.stop,
                "shares": column.shares,
                "counts": [[area, _flat(counts)] for area, counts in column.counts.items()],
            }
            for column in recording.columns
        ],
        "working_sets": [
            {name: getattr(one, name) for name in _WORKING_SET} for one in recording.working_sets
        ],
        "processes": [{name: getattr(one, name) for name in _PROCESS} for one in recording.processes],
    }


def _flat(counts: Sequence[Count]) -> list[int]:
    return [number for count in counts for number in count]


def write(recording: Recording, path: Path, *, force: bool) -> None:
    """Writes a file, which gets its name when it is complete.

    Raises:
        FileExistsError: there is one, and *force* is False.
        OSError: it can't be written.
        ValueError: it could not be read again.
    """
    text = json.dumps(encode(recording), separators=(",", ":"), ensure_ascii=False).encode()
    try:
        _parse(text)
    except _Wrong as error:
        raise ValueError(f"a recording that can't be read again: {error}") from None
    reserve_file(path, force=force)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.touch(_MODE)
        partial.write_bytes(gzip.compress(text, 6, mtime=0))
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        release_file(path)
        raise


def reserve_file(path: Path, *, force: bool) -> None:
    """Sees to it that a file can be written, and takes its name: an empty file, if there is none.

    It is for its owner alone: it holds names of variables, and the program's arguments.

    Raises:
        FileExistsError: there is one, and *force* is False, or it is no regular file.
        OSError: it can't be written.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "what has that name is no regular file, and stays", str(path))
    try:
        path.touch(_MODE, exist_ok=force)
    except FileExistsError as error:
        raise FileExistsError(
            error.errno, "there is a file of that name: --force replaces it", str(path)
        ) from None


def release_file(path: Path) -> None:
    """Gives up a name that was taken, if nothing was written."""
    with suppress(OSError):
        if not path.stat().st_size:
            path.unlink()


def read(path: Path) -> Recording:
    """Reads a file.

    Raises:
        RecordingError: it is no recording that can be read; the message says why.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        data = file.read(_MOST_FILE + 1)
    try:
        if len(data) > _MOST_FILE:
            raise _Wrong(f"it has more than {_MOST_FILE} bytes")
        return _parse(_decompressed(data))
    except (_Wrong, zlib.error) as error:
        raise RecordingError(f"{path} is no recording of dirtytrack that can be read: {error}") from None


class _Wrong(Exception):
    """What is wrong with it."""


def _parse(text: bytes) -> Recording:
    try:
        return _recording(parse(text, _MOST_MEMORY))
    except (ValueError, RecursionError) as error:
        raise _Wrong(str(error) or type(error).__name__) from None


def _decompressed(data: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    text = stream.decompress(data, _MOST_TEXT)
    if stream.unconsumed_tail:
        raise _Wrong(f"it has more than {_MOST_TEXT} bytes of JSON")
    if not stream.eof or stream.unused_data:
        raise _Wrong("it is cut off, or has something behind its end")
    return text


# Each checks one value, and returns it.


def _wrong(what: str, value: object) -> NoReturn:
    raise _Wrong(f"{what} is {str(value)[:40]!r}")


def _whole(value: Any, what: str, least: int = 0, most: int = _MOST) -> int:
    if type(value) is not int or not least <= value <= most:
        _wrong(what, value)
    return value


def _real(value: Any, what: str) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1e15 or not math.isfinite(value):
        _wrong(what, value)
    return float(value)


def _text(value: Any, what: str, most: int = _limits.TEXT) -> str:
    if not isinstance(value, str) or len(value) > most:
        _wrong(what, value)
    try:
        value.encode()
    except UnicodeEncodeError:
        _wrong(what, ascii(value))
    return value


def _power(value: Any, what: str) -> int:
    number = _whole(value, what, 1, 1 << 56)
    if number & (number - 1):
        _wrong(what, value)
    return number


def _list(value: Any, what: str, most: int, make: Callable[[Any], T]) -> tuple[T, ...]:
    if not isinstance(value, list) or len(value) > most:
        raise _Wrong(f"{what} are no list of at most {most}")
    return tuple(make(one) for one in value)


def _field(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise _Wrong(f"it has no {name!r} where there should be one")
    return value[name]


_HEAD: dict[str, Callable[[Any, str], Any]] = {
    "program": _text,
    "started": _real,
    "duration": _real,
    "collects": _whole,
    "overhead": _real,
    "watched": _whole,
    "assumed": _whole,
    "python": _text,
    "kernel": _text,
}
_AREA: dict[str, Callable[[Any, str], Any]] = {
    "name": lambda value, what: _text(value, what, _limits.NAME),
    "kind": _text,
    "address": _whole,
    "nbytes": lambda value, what: _whole(value, what, 1, 1 << 56),
    "offset": _whole,
    "page_size": _power,
    "itemsize": lambda value, what: _whole(value, what, 1),
    "writes": _whole,
    "distinct": _whole,
    "cell": _power,
    "column_cell": _power,
}
_WORKING_SET: dict[str, Callable[[Any, str], Any]] = {
    "interval": _real,
    "windows": _whole,
    "seconds": _real,
    "nbytes": _whole,
    "peak": _whole,
}
_PROCESS: dict[str, Callable[[Any, str], Any]] = {
    "pid": _whole,
    "parent": _whole,
    "start": _real,
    "stop": _real,
    "collects": _whole,
    "writes": _whole,
    "distinct": _whole,
    "nbytes": _whole,
}


def _fields(value: Any, table: dict[str, Callable[[Any, str], Any]]) -> dict[str, Any]:
    return {name: check(_field(value, name), name) for name, check in table.items()}


def _recording(data: Any) -> Recording:
    if _field(data, "format") != _FORMAT:
        raise _Wrong("it is something else")
    if (version := _field(data, "version")) != VERSION:
        raise _Wrong(f"it is of version {str(version)[:20]}, and this dirtytrack reads version {VERSION}")
    if (kind := _field(data, "kind")) not in ("profile", "record"):
        _wrong("kind", kind)
    areas = _list(_field(data, "areas"), "areas", _limits.AREAS, _area)
    processes = _list(_field(data, "processes"), "processes", _limits.PROCESSES, _process)
    last = max(len(processes) - 1, 0)
    phases = _list(_field(data, "phases"), "phases", _limits.PHASES, lambda one: _phase(one, areas, last))
    columns = _list(
        _field(data, "columns"), "columns", _limits.COLUMNS, lambda one: _column(one, areas, len(phases))
    )
    if any(one.stop > other.start + 1e-9 for one, other in itertools.pairwise(columns)):
        raise _Wrong("its columns overlap")
    for what, many, most in (
        ("counts of areas", (area.counts for area in areas), _limits.COUNTS),
        ("tallies", (phase.tallies for phase in phases), _limits.TALLIES),
        (
            "counts of columns",
            (runs for column in columns for runs in column.counts.values()),
            _limits.COLUMN_COUNTS,
        ),
    ):
        if sum(map(len, many)) > most:
            raise _Wrong(f"it has more than {most} {what}")
    return Recording(
        **_fields(data, _HEAD),
        kind=kind,
        areas=areas,
        phases=phases,
        columns=columns,
        working_sets=_list(
            _field(data, "working_sets"),
            "working_sets",
            _limits.WORKING_SETS,
            lambda one: WorkingSet(**_fields(one, _WORKING_SET)),
        ),
        processes=processes,
        notes=_list(_field(data, "notes"), "notes", _limits.NOTES, lambda one: _text(one, "a note")),
    )


def _area(value: Any) -> Area:
    fields = _fields(value, _AREA)
    if fields["kind"] not in ("region", "array", "mapping", "recorder"):
        _wrong("an area's kind", fields["kind"])
    if fields["offset"] >= fields["page_size"]:
        _wrong("an area's offset", fields["offset"])
    shape = _list(_field(value, "shape"), "a shape", _limits.AXES, lambda one: _whole(one, "a length", 1))
    if shape and math.prod(shape) * fields["itemsize"] != fields["nbytes"]:
        _wrong("a shape", shape)
    area = Area(**fields, shape=shape)
    for name, most in _CELLS.items():
        if _cells(area, fields[name]) > most:
            _wrong(name, fields[name])
    if area.distinct > min(area.page_count, area.writes):
        _wrong("distinct", area.distinct)
    counts = _counts(_field(value, "counts"), _cells(area, area.cell))
    return Area(**fields, shape=shape, counts=counts)


def _cells(area: Area, cell: int) -> int:
    return -(-area.page_count // cell)


def _counts(value: Any, cells: int) -> tuple[Count, ...]:
    flat = _list(value, "counts", 3 * cells, lambda one: _whole(one, "a count"))
    if len(flat) % 3:
        raise _Wrong("counts come in threes")
    found = tuple(Count(*three) for three in zip(flat[::3], flat[1::3], flat[2::3], strict=True))
    at = 0
    for start, stop, writes in found:
        if not at <= start < stop <= cells or not writes:
            _wrong("a run of counts", (start, stop, writes))
        at = stop
    return found


def _process(value: Any) -> Process:
    process = Process(**_fields(value, _PROCESS))
    if process.stop < process.start or process.distinct > process.writes:
        _wrong("a process", value)
    return process


def _phase(value: Any, areas: Sequence[Area], last: int) -> Phase:
    def tally(row: Any) -> Tally:
        area, writes, nbytes, distinct = _list(row, "a tally", 4, lambda one: _whole(one, "a tally"))
        if area >= len(areas) or distinct > min(areas[area].page_count, writes):
            _wrong("a tally", row)
        return Tally(area, writes, nbytes, distinct)

    return Phase(
        _text(_field(value, "name"), "a phase's name"),
        _whole(_field(value, "collects"), "collects"),
        _real(_field(value, "seconds"), "seconds"),
        _list(_field(value, "tallies"), "tallies", len(areas), tally),
        _whole(_field(value, "process"), "a process", 0, last),
    )


def _column(value: Any, areas: Sequence[Area], phases: int) -> Column:
    def share(row: Any) -> Share:
        if not isinstance(row, list) or len(row) != 3:
            _wrong("a share", row)
        return Share(
            _whole(row[0], "a phase", 0, phases - 1), _real(row[1], "seconds"), _whole(row[2], "writes")
        )

    def of_area(row: Any) -> tuple[int, tuple[Count, ...]]:
        if not isinstance(row, list) or len(row) != 2:
            _wrong("an area's counts", row)
        area = _whole(row[0], "an area", 0, len(areas) - 1)
        return area, _counts(row[1], _cells(areas[area], areas[area].column_cell))

    start, stop = _real(_field(value, "start"), "a start"), _real(_field(value, "stop"), "a stop")
    if stop < start:
        _wrong("a stop", stop)
    return Column(
        start,
        stop,
        _list(_field(value, "shares"), "shares", phases, share),
        dict(_list(_field(value, "counts"), "counts", len(areas), of_area)),
    )
