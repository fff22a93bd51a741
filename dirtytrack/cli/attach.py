"""Record which memory a Python program writes that runs already, and let it go on.

It takes Python 3.14 or later here and there, of the same minor version, and the permission to look into the
process: its user where the sysctl kernel.yama.ptrace_scope is 0, else root or CAP_SYS_PTRACE. Nothing has to
be installed in the program. What it writes is recorded as by 'dirtytrack record', without phases, until
Ctrl-C, until the time is over or until it ends, to PID.dirtytrack in the current directory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dirtytrack.cli._arguments import above_zero, at_least
from dirtytrack.cli.record import add_pace, pace_of, told
from dirtytrack.profile import file
from dirtytrack.profile.attaching import attach


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("pid", metavar="PID", type=at_least(1), help="the process")
    parser.add_argument(
        "--for", dest="seconds", metavar="SECONDS", type=above_zero, help="end it after so long"
    )
    add_pace(parser)


def run(args: argparse.Namespace) -> int:
    """Record the process; 0.

    Raises:
        UnsupportedError: this Python is too old, or the process can't track memory.
        PermissionError, ProcessLookupError, DirtyTrackError: it can't be attached to; the message says why.
        FileExistsError: there is a recording of that name.
    """
    path = args.output or Path(f"{args.pid}.dirtytrack")
    file.reserve_file(path, force=args.force)
    try:
        report = attach(args.pid, seconds=args.seconds, pace=pace_of(args), shared=args.shared)
        report.save(path, force=True)
    except BaseException:
        file.release_file(path)
        raise
    told(report.recording.duration, path)
    return 0
