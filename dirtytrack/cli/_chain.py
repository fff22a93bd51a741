"""What ``dirtytrack checkpoint`` does with a chain, verb by verb."""

from __future__ import annotations

import argparse
import importlib
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dirtytrack._progress import ShowProgress
from dirtytrack._text import count, plain, size
from dirtytrack.cli._arguments import compact_options, store_options
from dirtytrack.errors import ChainError

if TYPE_CHECKING:
    from dirtytrack.checkpoint import Chain, Checkpoint
    from dirtytrack.cli._extract import Extraction

_OPENINGS = 10  # at most, beside a writer that compacts all the time
_TRAINING = ":state"  # the region in which dirtytrack.torch packs what is small


def show(args: argparse.Namespace) -> int:
    """Show the complete checkpoints of a chain, and the files that can't be used. Contents are not read.

    "on disk" is the room that the checkpoint's own file takes, "written" the blocks of 4096 bytes that the
    save copied, "stored" those of them that held something new, "pause" the time from its last scan to the
    end of the copy.
    """
    from dirtytrack.cli import _report

    with _open(args) as chain:
        taken = chain.disk_usage()
        if args.json:
            checkpoints = [_report.facts(checkpoint, taken) for checkpoint in chain]
            _print_json(args.path, chain, checkpoints=checkpoints, disk_bytes=sum(taken.values()))
        else:
            _print_lines(*_report.table(chain, taken), *_report.problems(chain))
    return 0


def verify(args: argparse.Namespace) -> int:
    """Read all files of a chain, compare their checksums, and name the newest checkpoint to restore.

    The exit code is 0 only if every file is intact.
    """
    from dirtytrack.cli import _report

    with _open(args) as chain:
        with ShowProgress("verify") as progress:
            chain.verify(progress)
        intact = not chain.problems
        if args.json:
            _print_json(
                args.path, chain, intact=intact, checkpoints=[checkpoint.number for checkpoint in chain]
            )
        else:
            _print_lines(
                *_report.problems(chain),
                f"{count(len(chain), 'checkpoint')}, {'all files intact' if intact else 'DAMAGED'}.",
                f"The newest that can be restored is {_report.title(chain.newest)}."
                if len(chain)
                else "None can be restored.",
            )
    return 0 if intact else 1


def restore(args: argparse.Namespace) -> int:
    """Write the regions of a checkpoint to files in a directory, and print its meta as JSON.

    Files are named after the regions, percent-encoded where a name would not do. They are for their owner
    only, and get their names when all of them are complete. If a file of the chain turns out damaged, nothing
    is written; but without --at, the newest checkpoint without it is restored, and the output tells.
    """
    if args.format == "npy":
        try:
            importlib.import_module("numpy")
        except ImportError as error:
            raise ImportError(
                '.npy files need numpy: pip install "dirtytrack[numpy]", or --format raw'
            ) from error
    with _open(args) as chain:
        from dirtytrack.cli import _report
        from dirtytrack.cli._extract import Extraction

        with ShowProgress("restore") as progress:
            extraction = Extraction(args.into, args.format, args.force, progress)
            checkpoint, names, files = _extract(chain, args.at, args.region, extraction)
        regions = {one.name: one.nbytes for one in checkpoint.regions}
        written = [(name, file, regions[name]) for name, file in zip(names, files, strict=True)]
        if args.json:
            made = [dict(zip(("region", "file", "nbytes"), one, strict=True)) for one in written]
            _print_json(
                args.path,
                chain,
                checkpoint=checkpoint.number,
                id=checkpoint.id,
                meta=checkpoint.meta,
                files=made,
            )
        else:
            _print_lines(
                f"Restored checkpoint {_report.title(checkpoint)}",
                *(f"  {file}  {size(nbytes)}, region {json.dumps(name)}" for name, file, nbytes in written),
                f"meta {json.dumps(checkpoint.meta)}",
                *_report.problems(chain),
            )
    return 0


def _extract(
    chain: Chain, at: int | str | None, regions: list[str] | None, extraction: Extraction
) -> tuple[Checkpoint, list[str], list[str]]:
    # The checkpoint at, or the newest that turns out intact; names of its regions, and of the files made.
    while True:
        checkpoint = chain.newest if at is None else chain[at]
        names = list(dict.fromkeys(regions or [layout.name for layout in checkpoint.regions]))
        try:
            return checkpoint, names, extraction.write(chain, checkpoint, names)
        except ChainError as error:
            if checkpoint in chain:
                raise  # it is not the files
            if at is not None:
                told = f"{error}. Without --at the newest intact checkpoint is restored"
                raise ChainError(told) from error


def export(args: argparse.Namespace) -> int:
    """Write the arrays of a checkpoint to one file that safetensors or numpy loads.

    Of a training's chain the file has all its tensors, those below a page too: with --only model, by the
    names of that module's state. This needs torch. The file is for its owner only, and gets its name when it
    is complete. It takes as much room again on the disk while it is made.
    """
    from dirtytrack.cli import _report

    with _open(args) as chain:
        with ShowProgress("export") as progress:
            checkpoint = _export_once(args, chain, progress)
        if args.json:
            found = {"checkpoint": checkpoint.number, "id": checkpoint.id, "meta": checkpoint.meta}
            _print_json(args.path, chain, target=str(args.target), **found)
        else:
            _print_lines(
                f"Exported checkpoint {_report.title(checkpoint)} to {plain(str(args.target))}.",
                f"meta {json.dumps(checkpoint.meta)}",
                *_report.problems(chain),
            )
    return 0


def _export_once(args: argparse.Namespace, chain: Chain, progress: ShowProgress) -> Checkpoint:
    newest = chain.newest if args.at is None else chain[args.at]
    is_training = any(layout.name == _TRAINING for layout in newest.regions)
    by_name = "npz" if str(args.target).endswith(".npz") else "safetensors"
    common: dict[str, Any] = {"at": args.at, "format": args.format or by_name, "fsync": not args.no_fsync}
    if args.only is None and not (is_training and args.region is None):
        chain.export(args.target, regions=args.region, progress=progress, **common)
        return chain.newest if args.at is None else chain[args.at]
    from dirtytrack import torch  # which may not be there, and takes seconds

    options = store_options(args.store_options, args.path)[0]
    return torch.export(
        args.path, args.target, only=args.only, progress=progress, store_options=options, **common
    )


def diff(args: argparse.Namespace) -> int:
    """Show what differs between two checkpoints, region by region. What is equal is not listed.

    "blocks" are those of 4096 bytes that differ, "bytes" and "elements" what differs in them. Only what was
    stored for one of the two alone is read. The exit code is 0 whether anything differs or not.
    """
    from dirtytrack.cli import _report

    with _open(args) as chain:
        before = chain[args.before]
        after = chain.newest if args.after is None else chain[args.after]
        found = chain.diff(before.id, after.id)
        if args.json:
            pair = {"before": before.number, "after": after.number}
            _print_json(args.path, chain, **pair, regions=[_report.difference(one) for one in found])
        else:
            _print_lines(*_report.differences(before, after, found), *_report.problems(chain))
    return 0


def copy(args: argparse.Namespace) -> int:
    """Copy the files of a chain to another place, where they are a chain that can be read and resumed.

    It may run beside the writer, also while that compacts; to copy the directory by other means may miss what
    belongs together. Everything is checked on the way. What is damaged is left out and listed, and the exit
    code is 1 then. If the copy fails, none of its checkpoints is left; the directory and its lock may be.
    """
    for _ in range(_OPENINGS):
        with suppress(FileNotFoundError):  # a compaction removed a file that could not be kept open
            return _copy_once(args)
    return _copy_once(args)


def _copy_once(args: argparse.Namespace) -> int:
    from dirtytrack.cli import _report

    with _open(args) as chain:
        with ShowProgress("copy") as progress:
            files = chain.export(
                args.target,
                at=args.at,
                fsync=not args.no_fsync,
                lock=args.lock,
                progress=progress,
                store_options=store_options(args.store_options, args.path, args.target)[1],
            )
        if args.json:
            _print_json(args.path, chain, target=str(args.target), files=files)
        else:
            told = f"Copied {count(len(files), 'file')} to {plain(str(args.target))}."
            _print_lines(told, *_report.problems(chain))
        return 1 if args.at is None and chain.problems else 0


def compact(args: argparse.Namespace) -> int:
    """Write a base for the oldest of the N newest checkpoints, and remove what is older.

    The base is on the disk before the first file is removed. It fails while a Checkpointer has the chain, as
    that can do it, too.
    """
    from dirtytrack import checkpoint
    from dirtytrack.cli import _report

    with ShowProgress("compact") as progress:
        done = checkpoint.compact(args.path, progress=progress, **compact_options(args))
    with _open(args) as chain:
        taken = sum(chain.disk_usage().values())
        if args.json:
            _print_json(
                args.path,
                chain,
                base=done.number,
                removed=done.removed,
                disk_bytes=taken,
                freed_bytes=done.freed_bytes,
            )
        else:
            begins = f"The chain begins with checkpoint {done.number}"
            _print_lines(
                *_report.compacted(begins, done.removed, taken, done.freed_bytes), *_report.problems(chain)
            )
    return 0


def _open(args: argparse.Namespace) -> Chain:
    from dirtytrack.checkpoint import Chain

    targets = [args.target] if "target" in args else []
    return Chain(args.path, store_options=store_options(args.store_options, args.path, *targets)[0])


def _print_lines(*lines: str) -> None:
    for line in lines:
        print(line)


def _print_json(path: Path | str, chain: Chain, **found: Any) -> None:
    newest = chain.newest.number if len(chain) else None
    problems = [problem._asdict() for problem in chain.problems]
    print(json.dumps({"path": str(path), "chain": chain.id, "newest": newest, **found, "problems": problems}))
