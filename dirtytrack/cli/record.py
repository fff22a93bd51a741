"""Run a Python program, and record which memory it writes, when, and in which phase.

The program runs as ever, with its own input, output and arguments. The recording is written when it ends,
also by Ctrl-C, to SCRIPT.dirtytrack in the current directory; 'dirtytrack report' shows it. Watched are the
heap, the stack and all private anonymous memory: Python's objects, numpy arrays, tensors; with --shared
shared memory and mapped files, too. Arrays are named where variables of modules and running functions lead to
them. Processes that it forks are recorded with --follow-forks. A program that tracks memory with dirtytrack
itself can't be: memory has one userfaultfd.

The exit code is the program's; 1 if it could not be recorded, and a line on stderr says why.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dirtytrack._text import duration, printable, size
from dirtytrack.cli._arguments import above_zero
from dirtytrack.profile import file
from dirtytrack.profile.functions import check_name
from dirtytrack.profile.recorder import Pace
from dirtytrack.profile.running import record

_INTERRUPTED = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.usage = "dirtytrack record [options] script.py|-m module [arguments]"
    add_pace(parser)
    parser.add_argument(
        "--phase",
        metavar="MODULE:FUNCTION",
        type=_function,
        action="append",
        default=[],
        help="charge what is written during calls of this function to it; may be repeated. Before Python "
        "3.12 not of the program itself, only of modules, which are imported before it begins",
    )
    parser.add_argument(
        "--follow-forks",
        action="store_true",
        help="record forked children as well, each as a phase of its own, up to 256; one that executes "
        "another program is not followed there",
    )
    parser.add_argument("-m", dest="is_module", action="store_true", help="run a module, as python -m does")
    parser.add_argument("program", metavar="script.py", help="the program, or with -m the module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what it is given")


def _function(text: str) -> str:
    try:
        check_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def add_pace(parser: argparse.ArgumentParser) -> None:
    """Declare what records of both kinds have: how often is looked, at what, and where to."""
    parser.add_argument(
        "--every",
        metavar="SECONDS",
        type=above_zero,
        default=0.1,
        help="seconds between two looks, at least (default %(default)s)",
    )
    parser.add_argument(
        "--overhead",
        metavar="PERCENT",
        type=above_zero,
        default=10.0,
        help="look less often where looks and the write faults after them would take more of the time than "
        "this, about (default %(default)g)",
    )
    parser.add_argument(
        "--shared",
        action="store_true",
        help="watch shared memory and mapped files as well: what the program stores to them",
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write the recording there")
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")


def pace_of(args: argparse.Namespace) -> Pace:
    """What was asked for."""
    return Pace(args.every, min(args.overhead, 100.0) / 100)


def run(args: argparse.Namespace) -> int:
    """Run the program; returns its exit code.

    Raises:
        FileExistsError: there is a recording of that name.
        DirtyTrackError: it could not be recorded.
    """
    name = args.program.rpartition(".")[2] if args.is_module else Path(args.program).stem
    path = args.output or Path(f"{name}.dirtytrack")
    if not args.is_module and not Path(args.program).exists():
        raise FileNotFoundError(f"there is no program {args.program!r}")
    file.reserve_file(path, force=args.force)
    try:
        report, code = record(
            [args.program, *args.arguments],
            is_module=args.is_module,
            phases=args.phase,
            pace=pace_of(args),
            follow_forks=args.follow_forks,
            shared=args.shared,
        )
        report.save(path, force=True)
    except BaseException:
        file.release_file(path)
        raise
    told(report.recording.duration, path)
    return code if code >= 0 else _INTERRUPTED - code


def told(seconds: float, path: Path) -> None:
    """Says on stderr what there is now, and what to do with it."""
    name = printable(str(path))
    print(
        f"dirtytrack: recorded {duration(seconds)} in {name} ({size(path.stat().st_size)}). "
        f"Next: dirtytrack report {name}",
        file=sys.stderr,
    )
