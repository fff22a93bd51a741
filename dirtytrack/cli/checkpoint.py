"""Look at a chain of checkpoints, check and compare it, copy it, take its contents out, make it shorter.

PATH is the directory of the chain, or its URL in an object store: s3://bucket/run-1, gs://, az://, file:///.
Credentials are those that the environment has, --store-option gives the rest. Only compact changes anything
in it; the others may run beside its writer. Where a group of processes has saved, list, verify, restore and
compact are about its states.
Text that comes from files is printed in ASCII, with escape sequences. With --json everything is printed for
programs, sizes in bytes and times in seconds. A line on stderr shows how far it is, if that is a terminal.

Exit codes: 0 success; 1 it failed, and a line on stderr says why and what to do, or verify or copy found a
problem; 2 wrong usage; 130 interrupted. Needs the extra: pip install "dirtytrack[checkpoint]".
"""

from __future__ import annotations

import argparse
import inspect
import logging
import re
from collections.abc import Callable
from pathlib import Path

from dirtytrack.cli import _chain, _group
from dirtytrack.cli._arguments import add_store_options, at_least, place

_QUIET = logging.NullHandler()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own verbs, each with its arguments."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def add(
        name: str, summary: str, action: Callable[[argparse.Namespace], int]
    ) -> Callable[..., argparse.Action]:
        verb = verbs.add_parser(
            name,
            help=summary,
            description=inspect.getdoc(action),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.add_argument("path", metavar="PATH", type=place, help="the directory of the chain, or its URL")
        add_store_options(verb.add_argument)
        verb.add_argument("--json", action="store_true", help="print everything as JSON, for programs")
        verb.set_defaults(action=action)
        return verb.add_argument

    def add_store(option: Callable[..., argparse.Action]) -> None:
        option(
            "--no-fsync", action="store_true", help="sync nothing: a crash of the machine may cost the chain"
        )
        option(
            "--lock",
            choices=("record", "none"),
            default="record",
            help="none: keep out no other writer, where there are no record locks (default %(default)s)",
        )

    add("list", "show the checkpoints", _chain.show)
    add("verify", "read everything, and say what is damaged and what can be restored", _chain.verify)
    option = add("restore", "write the regions of a checkpoint to files", _chain.restore)
    option("--into", metavar="DIRECTORY", type=Path, required=True, help="for the files; made if not there")
    option(
        "--at",
        metavar="CHECKPOINT",
        type=_checkpoint,
        help="number or identifier (default: the newest intact one)",
    )
    option("--region", metavar="NAME", action="append", help="only this one; may be repeated (default: all)")
    option(
        "--format",
        choices=("npy", "raw"),
        default="npy",
        help="NAME.npy, an array, or NAME.bin, its bytes (default %(default)s)",
    )
    option("--force", action="store_true", help="replace files that are there")
    option = add("export", "write the arrays of a checkpoint to one file, for other programs", _chain.export)
    option("target", metavar="FILE", type=place, help="the file, which must not be there")
    option(
        "--format",
        choices=("safetensors", "npz"),
        help="of the file (default: npz if its name ends so, else safetensors)",
    )
    option(
        "--at",
        metavar="CHECKPOINT",
        type=_checkpoint,
        help="number or identifier (default: the newest intact one)",
    )
    one = verbs.choices["export"].add_mutually_exclusive_group()
    one.add_argument(
        "--region", metavar="NAME", action="append", help="only this one; may be repeated (default: all)"
    )
    one.add_argument(
        "--only", metavar="NAME", help="of a training: only the tensors of this, such as model (default: all)"
    )
    option("--no-fsync", action="store_true", help="sync nothing: a crash of the machine may cost the file")
    option = add("diff", "what differs between two checkpoints, region by region", _chain.diff)
    option("before", metavar="BEFORE", type=_checkpoint, help="the one, by number or identifier")
    option("after", metavar="AFTER", type=_checkpoint, nargs="?", help="the other (default: the newest)")
    option = add("copy", "copy the chain, also while it is written", _chain.copy)
    option(
        "target",
        metavar="TARGET",
        type=place,
        help="a directory, made if not there, or a URL; without a chain",
    )
    option(
        "--at",
        metavar="CHECKPOINT",
        type=_checkpoint,
        help="number or identifier of the only one to copy (default: all that are intact)",
    )
    add_store(option)
    option = add("compact", "write a new base, and remove the checkpoints before it", _chain.compact)
    option(
        "--keep",
        metavar="N",
        type=at_least(1),
        default=1,
        help="how many checkpoints stay (default %(default)s)",
    )
    option(
        "--compression",
        choices=("auto", "none", "zstd"),
        default="auto",
        help="of the base; auto: what a sample shows to be compressible (default %(default)s)",
    )
    add_store(option)
    option(
        "--grace-period",
        metavar="SECONDS",
        type=at_least(0),
        help="of a URL: how long files stay that nothing needs any more, for their readers (default 3600)",
    )


def run(args: argparse.Namespace) -> int:
    """Do what was asked, and return the exit code.

    Raises:
        ImportError: without xxhash, or where they are needed zstandard, numpy or obstore, naming the extra.
        DirtyTrackError, OSError: of the chain, or of the files to write.
    """
    logging.getLogger("dirtytrack.checkpoint").addHandler(_QUIET)  # what it warns of is printed here
    of_group = {
        _chain.show: _group.show,
        _chain.verify: _group.verify,
        _chain.restore: _group.restore,
        _chain.compact: _group.compact,
    }
    if args.action in of_group and _group.is_group(args):
        return of_group[args.action](args)
    result: int = args.action(args)
    return result


def _checkpoint(text: str) -> int | str:
    if re.fullmatch("[0-9]{1,20}", text):
        return int(text)
    if re.fullmatch("[0-9a-f]{32}", text):
        return text
    raise argparse.ArgumentTypeError(f"a checkpoint's number, or its identifier of 32 digits, not {text!r}")
