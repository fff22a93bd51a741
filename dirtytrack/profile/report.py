"""A result, as something to read, to keep, and to give to other programs."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dirtytrack.profile import _page, _traces, file, table
from dirtytrack.profile.recording import Recording


class Report:
    """What a `Profile` or a recording found: ``print(report)`` is its table.

    Attributes:
        recording: the data.
    """

    __slots__ = ("recording",)

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Reads what `save` has written, or ``dirtytrack record``.

        The file may come from anybody: it is checked in all its parts, and takes bounded memory.

        Raises:
            RecordingError: it is no recording, of a later version, damaged, or too large.
            OSError: it can't be read.
        """
        return cls(file.read(Path(path)))

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Writes a file that `load`, ``dirtytrack report`` and ``dirtytrack forecast`` read.

        Args:
            path: where.
            force: whether a file that is there is replaced.

        Raises:
            FileExistsError: there is a file.
            OSError: it can't be written.
        """
        file.write(self.recording, Path(path), force=force)

    def to_dict(self) -> dict[str, Any]:
        """Returns what `to_json` writes."""
        recording = self.recording
        names = _unique(area.name for area in recording.areas)
        named = dict(zip(map(id, recording.areas), names, strict=True))
        return {
            "kind": recording.kind,
            "program": recording.program,
            "started": recording.started,
            "duration": recording.duration,
            "collects": recording.collects,
            "overhead": recording.overhead,
            "pages": recording.writes,
            "regions": {
                name: {
                    "kind": area.kind,
                    "address": area.address,
                    "nbytes": area.nbytes,
                    "pages": area.writes,
                    "distinct": area.distinct,
                }
                for name, area in zip(names, recording.areas, strict=True)
            },
            "phases": {
                phase.title: {
                    "seconds": phase.seconds,
                    "collects": phase.collects,
                    "pages": phase.writes,
                    "distinct": phase.distinct,
                    "nbytes": phase.nbytes,
                    "regions": {
                        names[tally.area]: {
                            "pages": tally.writes,
                            "distinct": tally.distinct,
                            "nbytes": tally.nbytes,
                            "rewritten": tally.rewritten,
                        }
                        for tally in phase.tallies
                    },
                }
                for phase in recording.phases
            },
            "processes": [asdict(one) for one in recording.processes],
            "working_sets": [
                {"interval": one.interval, "windows": one.windows, "mean": one.mean, "peak": one.peak}
                for one in recording.working_sets
            ],
            "hottest": [
                {"region": named[id(area)], "start": start, "stop": stop, "pages": writes}
                for area, start, stop, writes in recording.hottest(table.HOTTEST)
            ],
            "over_time": [
                {"start": column.start, "stop": column.stop, "pages": column.writes}
                for column in recording.columns
            ],
            "notes": list(recording.notes),
        }

    def to_json(self, path: str | Path) -> None:
        """Writes the numbers as JSON: ``phases[name]["pages"]`` are page-writes, ``distinct`` the pages.

        Sizes are in bytes, times in seconds. A file that is there is replaced, here and below.
        """
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def to_html(self, path: str | Path) -> None:
        """Writes a page that needs nothing else: what was written when, as a map; phases; hottest ranges."""
        Path(path).write_text(_page.page(self.recording), encoding="utf-8")

    def to_perfetto(self, path: str | Path) -> None:
        """Writes a trace for ui.perfetto.dev or chrome://tracing: bytes written over time, by region."""
        Path(path).write_text(json.dumps(_traces.perfetto(self.recording)), encoding="utf-8")

    def to_speedscope(self, path: str | Path) -> None:
        """Writes a profile for speedscope.app: the phases, each as wide as the bytes that it wrote."""
        Path(path).write_text(json.dumps(_traces.speedscope(self.recording)), encoding="utf-8")

    def __str__(self) -> str:
        return "\n".join(table.lines(self.recording))

    def __repr__(self) -> str:
        recording = self.recording
        return (
            f"<dirtytrack.profile.Report: {recording.writes} page-writes in {len(recording.phases)} phases, "
            f"{recording.duration:.1f} s>"
        )

    def _repr_html_(self) -> str:
        # In a frame of its own, whose scripts and styles touch nothing of the notebook.
        document = html.escape(_page.page(self.recording), quote=True)
        return (
            f'<iframe srcdoc="{document}" sandbox="allow-scripts" style="width:100%;height:640px;border:0">'
            f"</iframe>"
        )


def _unique(names: Iterable[str]) -> list[str]:
    # The second "a" is "a (2)": an array that was made anew has its name again, and regions may share one.
    found: dict[str, None] = {}
    numbers: dict[str, int] = {}
    for name in names:
        unique = name
        while unique in found:
            numbers[name] = numbers.get(name, 1) + 1
            unique = f"{name} ({numbers[name]})"
        found[unique] = None
    return list(found)
