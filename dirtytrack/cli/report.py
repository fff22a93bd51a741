"""Show a recording: who wrote which memory, when, how often.

On a terminal tables and a heat map, for which the extra is needed: pip install "dirtytrack[report]". Without
it, and where the output is no terminal, a table in plain text. With a second recording, what differs between
the two. Files that are there are replaced by --html, --json is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path

from dirtytrack._text import columns, plain, shorten, size
from dirtytrack.profile import Report, comparison, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("file", metavar="FILE", type=Path, help="of 'dirtytrack record' or Report.save")
    parser.add_argument("other", metavar="OTHER", type=Path, nargs="?", help="a second one, to be compared")
    parser.add_argument(
        "--html", metavar="FILE", type=Path, help="write a page of HTML that needs nothing else"
    )
    parser.add_argument("--perfetto", metavar="FILE", type=Path, help="write a trace for ui.perfetto.dev")
    parser.add_argument("--speedscope", metavar="FILE", type=Path, help="write a profile for speedscope.app")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON, for programs")


def run(args: argparse.Namespace) -> int:
    """Show or write what was asked for; 0.

    Raises:
        RecordingError: a file is no recording.
        OSError: it can't be read, or written.
    """
    report = Report.load(args.file)
    other = Report.load(args.other) if args.other else None
    wanted = [(args.html, report.to_html), (args.perfetto, report.to_perfetto)]
    wanted.append((args.speedscope, report.to_speedscope))
    for path, write in wanted:
        if path is not None:
            write(path)
            print(f"wrote {path}", file=sys.stderr)
    if args.json:
        print(json.dumps(_compared(report, other) if other else report.to_dict()))
    elif other:
        _print_comparison(report, other)
    elif not any(path for path, _ in wanted):
        _print(report)
    return 0


def _print(report: Report) -> None:
    if not sys.stdout.isatty():
        print(report)
    elif importlib.util.find_spec("rich") is None:
        print(report)
        print('\nFor colours and a heat map: pip install "dirtytrack[report]"')
    else:
        from dirtytrack.cli import _recording

        _recording.show(report.recording, sys.stdout)


def _compared(report: Report, other: Report) -> list[dict[str, object]]:
    return [
        {
            "phase": row.phase,
            "region": row.area,
            "nbytes": row.nbytes,
            "pages": row.distinct,
            "rates": row.rates,
        }
        for row in comparison.compare(report.recording, other.recording)
    ]


def _print_comparison(report: Report, other: Report) -> None:
    rows: list[tuple[str, ...]] = [("phase", "region", "first", "second", "", "pages", "pages")]
    for row in comparison.compare(report.recording, other.recording):
        first, second = row.rates
        change = f"{second / first:.2f}x" if first and second else "gone" if first else "new"
        names = (plain(shorten(name, 32)) for name in (row.phase, row.area))
        rates = (f"{size(round(rate))}/s" for rate in row.rates)
        rows.append((*names, *rates, change, *(f"{pages:,}" for pages in row.distinct)))
    for title, one in (("first", report), ("second", other)):
        print(f"{title}:  {table.heading(one.recording)}")
    print()
    for line in columns(rows, "<<>>>>>"):
        print(line)
