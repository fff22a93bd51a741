"""Tell from a recording how large incremental checkpoints of the program would be, and whether they pay.

A delta holds the pages that were written since the save before it: the more seldom it is saved, the more it
holds, but the less of them there are. Blocks that hold what they held before are not stored, and compression
takes off
more: files are smaller than what is told here.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from dirtytrack._text import columns, duration, size
from dirtytrack.profile import Report, table
from dirtytrack.profile.forecast import Forecast, forecast

_HOUR = 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("file", metavar="FILE", type=Path, help="of 'dirtytrack record' or Report.save")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON, for programs")


def run(args: argparse.Namespace) -> int:
    """Print it; 0.

    Raises:
        RecordingError: the file is no recording.
        OSError: it can't be read.
    """
    report = Report.load(args.file)
    found = forecast(report.recording)
    if args.json:
        print(json.dumps(asdict(found)))
    else:
        _print(report, found)
    return 0


def _print(report: Report, found: Forecast) -> None:
    print(table.heading(report.recording))
    print()
    rows = [("a save every", "holds", "at most", "of all", "in an hour", "tracking pays")]
    rows += [
        (
            duration(one.interval),
            size(round(one.nbytes)),
            size(one.peak),
            f"{one.fraction:.1%}",
            size(round(one.nbytes * _HOUR / one.interval)),
            "yes" if one.pays else "no",
        )
        for one in found.deltas
    ]
    for line in columns(rows, "<>>>>>"):
        print(line)
    if not found.deltas:
        print("The recording is too short to tell.")
    print()
    print(f"The first save, of everything, holds {size(found.base)}.")
    if found.adaptive >= 0.01:
        print(
            f"An adaptive session that looks as often as this recording did spares {found.adaptive:.0%} of "
            "the write faults."
        )
