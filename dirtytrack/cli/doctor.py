"""Tell whether writes to memory can be tracked here, and if not, why and what to do.

Everything is tried on memory of the doctor's own; nothing is changed. Exit code 0 only if tracking works.

With PATH, tell instead what that directory, or that URL of an object store, can do for a chain of
checkpoints, and what follows from it; tried on files of the doctor's own, which are gone afterwards. A chain
that is there is left alone. Exit code 0 only if a chain can be kept there with the default options. Needs the
extra: pip install "dirtytrack[checkpoint]", of a URL "dirtytrack[cloud]".
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator

from dirtytrack._text import printable
from dirtytrack.cli._arguments import add_store_options, place, store_options
from dirtytrack.kernel.support import Check, Support, support

_MARKS = {True: "ok", False: "NO", None: "--"}
_COLOURS = {"ok": "\033[32m", "NO": "\033[1;31m", "--": "\033[2m"}
_RESET = "\033[0m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "path", metavar="PATH", type=place, nargs="?", help="a directory for checkpoints, or a URL"
    )
    add_store_options(parser.add_argument)
    parser.add_argument("--json", action="store_true", help="print all of it as JSON, for programs")


def run(args: argparse.Namespace) -> int:
    """Print what was found; 0 if tracking works, or the directory does, else 1.

    Raises:
        OSError: there is no such directory, or it may not be read.
        ImportError: of the directory, without xxhash, or of a URL, without obstore, naming the extra.
        StoreError: it is no URL of a store that is known.
    """
    if args.path is not None:
        return _look_at(args)
    found = support()
    if args.json:
        print(found.to_json())
    else:
        _print(found.checks, _verdict(found))
    return 0 if found.works else 1


def _look_at(args: argparse.Namespace) -> int:
    from dirtytrack.checkpoint import directory_support

    path = args.path
    found = directory_support(path, store_options=store_options(args.store_options, path)[0])
    if args.json:
        print(found.to_json())
    else:
        options = "" if found.works else " with the default options"
        can = "can" if found.works else "can't"
        _print(found.checks, [f"A chain of checkpoints {can} be kept in {printable(str(path))}{options}."])
    return 0 if found.works else 1


def _verdict(found: Support) -> list[str]:
    if found.works:
        return ["Tracking works here."]
    return [f"Tracking does not work here. Cause: {found.cause}.", found.remedy]


def _print(checks: Iterable[Check], verdict: list[str]) -> None:
    width = shutil.get_terminal_size().columns
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    margin = max(len(check.name) for check in checks)
    for check in checks:
        for line in _lines(check, margin, width, colour):
            print(line)
    print()
    for sentence in verdict:
        print(textwrap.fill(sentence, width, break_long_words=False, break_on_hyphens=False))


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
