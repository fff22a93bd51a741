"""Tell whether writes to memory can be tracked here, and if not, why and what to do.

Everything is tried on memory of the doctor's own; nothing is changed. Exit code 0 only if tracking works.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator

from dirtytrack.kernel.support import Check, Support, support

_MARKS = {True: "ok", False: "NO", None: "--"}
_COLOURS = {"ok": "\033[32m", "NO": "\033[1;31m", "--": "\033[2m"}
_RESET = "\033[0m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--json", action="store_true", help="print all of it as JSON, for programs")


def run(args: argparse.Namespace) -> int:
    """Print what was found; 0 if tracking works, else 1."""
    found = support()
    if args.json:
        print(found.to_json())
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        for line in _report(found, shutil.get_terminal_size().columns, colour):
            print(line)
    return 0 if found.works else 1


def _report(found: Support, width: int, colour: bool) -> Iterator[str]:
    margin = max(len(check.name) for check in found.checks)
    for check in found.checks:
        yield from _lines(check, margin, width, colour)
    yield ""
    if found.works:
        yield "Tracking works here."
    else:
        yield f"Tracking does not work here. Cause: {found.cause}."
        yield from textwrap.wrap(found.remedy, width)


def _lines(check: Check, margin: int, width: int, colour: bool) -> Iterator[str]:
    """One check as a line of the table, folded to *width* columns, its remedy below."""
    mark = _MARKS[check.ok]
    painted = f"{_COLOURS[mark]}{mark}{_RESET}" if colour else mark
    indent = " " * (len(mark) + margin + 4)
    room = max(20, width - len(indent))
    first, *rest = textwrap.wrap(check.detail, room) or [""]
    yield f"{painted}  {check.name:{margin}}  {first}".rstrip()
    remedy = textwrap.wrap(f"-> {check.remedy}", room, subsequent_indent="   ") if check.remedy else []
    for line in rest + remedy:
        yield indent + line
