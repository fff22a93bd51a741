"""Measure the cost of tracking on this machine, each figure beside its yardstick in the same run.

A full run takes twenty to forty minutes, up to 12 GiB of memory and 25 GiB of the temporary directory; what
does not fit or can't be compiled is skipped, with the reason. Run it on an idle machine: the load is printed
with the figures. Exit code 0 also when a budget is missed. Needs the extra: pip install "dirtytrack[bench]".
"""

from __future__ import annotations

import argparse
import importlib


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "--rows", metavar="PATTERN", default="*", help="only rows of that name, as in 'collect-*'"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--quick", action="store_true", help="small and few: shows that all rows work")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, for programs")


def run(args: argparse.Namespace) -> int:
    """Run the rows; 0, or 1 if none has such a name.

    Raises:
        ImportError: numpy or xxhash is missing.
    """
    for name in ("numpy", "xxhash"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(f'the benchmarks need {name}: pip install "dirtytrack[bench]"') from error
    from dirtytrack.benchmarks import report

    return report.main(args)
