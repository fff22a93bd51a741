"""The command line. One module per verb, imported when it is used.

A verb is a module ``dirtytrack.cli.NAME`` with a docstring (its help), ``add_arguments(parser)`` and
``run(args)``, which returns the exit code. Exit codes: 0 success; 1 it failed, one line on stderr says why
and what to do; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from collections.abc import Sequence

import _cffi_backend

from dirtytrack import __version__
from dirtytrack.errors import DirtyTrackError

_VERBS = {
    "doctor": "can this kernel and environment track writes, and if not, what to do",
    "demo": "watch the pages that a real program writes",
    "bench": "measure the cost of tracking on this machine",
    "record": "run a program, and record which memory it writes",
    "report": "show a recording: tables and a heat map, HTML, JSON, a trace",
    "forecast": "tell from a recording how large incremental checkpoints would be",
    "attach": "record a program that runs already (Python 3.14)",
    "checkpoint": "list, verify, restore and compact chains of checkpoints",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; see the module's docstring for the codes.

    Args:
        argv: the arguments without the program's name; by default those of this process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # the shell closed it
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115, PTH123
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone; nothing more can be said on it, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (DirtyTrackError, OSError, ImportError) as error:
        from dirtytrack._text import printable  # the message may quote what a file says

        print(f"dirtytrack: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 1


def _run(arguments: list[str]) -> int:
    """Run the verb that is asked for; without any arguments print the help."""
    parser = _parser(next((word for word in arguments if word in _VERBS), None))
    result = 0
    if arguments:
        args = parser.parse_args(arguments)
        result = args.run(args)
    else:
        parser.print_help()
    sys.stdout.flush()
    return result


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser of all verbs by name, and of the chosen one's arguments."""
    parser = argparse.ArgumentParser(
        prog="dirtytrack",
        description="Which pages of my memory were written since I last asked?",
        epilog="'dirtytrack VERB --help' tells more.",
    )
    parser.add_argument("--version", action="version", version=_version())
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, summary in _VERBS.items():
        verb = verbs.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == chosen:
            module = importlib.import_module(f"dirtytrack.cli.{name}")
            verb.description = module.__doc__
            module.add_arguments(verb)
            verb.set_defaults(run=module.run)
    return parser


def _version() -> str:
    python, linux = platform.python_version(), platform.release()
    return f"dirtytrack {__version__}, cffi {_cffi_backend.__version__}, Python {python}, Linux {linux}"
