"""A result in the formats of other programs: Perfetto (Chrome's trace events) and speedscope."""

from __future__ import annotations

from typing import Any

from dirtytrack.profile.recording import Column, Recording

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"  # its name; nobody fetches it


def perfetto(recording: Recording) -> dict[str, Any]:
    """Counters of bytes written, by area, and the phases as slices, those of each process on a track.

    Where columns were put together the phases within one stand one after the other, each as long as it took.
    """
    process = {"pid": 1, "tid": 1}
    events: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", **process, "args": {"name": recording.program}},
        {"name": "thread_name", "ph": "M", **process, "args": {"name": "phases"}},
    ]
    for number, child in enumerate(recording.processes[1:], 2):
        name = {"name": f"process {child.pid}"}
        events.append({"name": "thread_name", "ph": "M", "pid": 1, "tid": number, "args": name})
    written: set[int] = set()
    for column in recording.columns:
        events += _slices(recording, column)
        for index in sorted(written | set(column.counts)):
            area = recording.areas[index]
            pages = sum((stop - start) * writes for start, stop, writes in column.counts.get(index, ()))
            counter = {"name": f"written: {area.name}", "ph": "C", "ts": column.start * 1e6, **process}
            events.append({**counter, "args": {"bytes": pages * area.page_size}})
        written = set(column.counts)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _slices(recording: Recording, column: Column) -> list[dict[str, Any]]:
    # From the end, since a process may have been looked at before the column begins and not since.
    found: list[dict[str, Any]] = []
    starts: dict[int, float] = {}
    for share in reversed(column.shares):
        phase = recording.phases[share.phase]
        stop = starts.get(phase.process, column.stop)
        start = starts[phase.process] = max(stop - share.seconds, 0.0)
        slice_ = {"name": phase.title, "cat": "phase", "ph": "X", "ts": start * 1e6}
        where = {"pid": 1, "tid": 1 + phase.process}
        found.append({**slice_, "dur": (stop - start) * 1e6, **where, "args": {"pages": share.writes}})
    return found[::-1]


def speedscope(recording: Recording) -> dict[str, Any]:
    """Two profiles: bytes written, by phase and area; and seconds, by phase."""
    frames: dict[str, int] = {}

    def frame(name: str) -> int:
        return frames.setdefault(name, len(frames))

    def profile(name: str, unit: str, found: list[tuple[list[int], float]]) -> dict[str, Any]:
        return {
            "type": "sampled",
            "name": name,
            "unit": unit,
            "startValue": 0,
            "endValue": sum(weight for _, weight in found),
            "samples": [stack for stack, _ in found],
            "weights": [weight for _, weight in found],
        }

    written: list[tuple[list[int], float]] = []
    spent: list[tuple[list[int], float]] = []
    for phase in recording.phases:
        stack = [frame(name) for name in phase.title.split("/")]
        spent.append((stack, phase.seconds))
        for tally in phase.tallies:
            area = frame(f"[{recording.areas[tally.area].name}]")
            written.append(([*stack, area], tally.nbytes))
    profiles = [profile("bytes written", "bytes", written), profile("time", "seconds", spent)]
    return {
        "$schema": _SCHEMA,
        "exporter": "dirtytrack",
        "name": recording.program,
        "shared": {"frames": [{"name": name} for name in frames]},
        "profiles": profiles,
    }
