"""What `dirtytrack checkpoint` does where a group of processes has saved."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dirtytrack._progress import ShowProgress
from dirtytrack._text import count, plain, size
from dirtytrack.cli._arguments import store_options

if TYPE_CHECKING:
    from dirtytrack.group import GroupChain, GroupCheckpoint


def is_group(args: argparse.Namespace) -> bool:
    """Whether the path is a group's."""
    if isinstance(args.path, Path):
        return (args.path / "records").is_dir()
    from dirtytrack.group import GroupChain

    return GroupChain.is_at(args.path, store_options=_options(args))


def show(args: argparse.Namespace) -> int:
    """Shows the states, and what their parts take."""
    from dirtytrack.cli import _group_report

    chain = _open(args)
    parts = _group_report.parts_of(chain)
    if args.json:
        states = [_facts(state) | _group_report.facts(state, parts) for state in chain]
        told = {"path": str(args.path), "newest": chain.newest.number, "states": states}
        print(json.dumps(told | {"disk_bytes": sum(parts.files.values())}))
    else:
        print(*_group_report.table(chain, parts), sep="\n")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Reads everything, and says what is damaged."""
    chain = _open(args)
    problems = chain.verify()
    if args.json:
        told = {"path": str(args.path), "newest": chain.newest.number, "intact": not problems}
        print(json.dumps({**told, "problems": [one._asdict() for one in problems]}))
    else:
        for problem in problems:
            print(plain(str(problem)))
        print(f"{count(len(chain), 'state')}, {'DAMAGED' if problems else 'all files intact'}.")
    return 1 if problems else 0


def restore(args: argparse.Namespace) -> int:
    """Writes regions of a state to files, whichever process saved them."""
    from dirtytrack.cli._extract import Extraction
    from dirtytrack.errors import ChainError

    chain = _open(args)
    if isinstance(args.at, str):
        raise ChainError(f"a state of a group is called by its number, not by {args.at!r}")
    state = chain.newest if args.at is None else chain[args.at]
    wanted = list(dict.fromkeys(args.region or state.names))
    parts = {state.part_of(name) for name in wanted}
    made = []
    with ShowProgress("restore") as progress:
        extraction = Extraction(args.into, args.format, args.force, progress)
        for part in sorted(parts):
            names = [name for name in wanted if name in part.names]
            with chain.open_part(part) as opened:
                checkpoint = opened[part.id]
                files = extraction.write(opened, checkpoint, names)
                sizes = {one.name: one.nbytes for one in checkpoint.regions}
            made += [(name, file, sizes[name]) for name, file in zip(names, files, strict=True)]
    if args.json:
        listed = [dict(zip(("region", "file", "nbytes"), one, strict=True)) for one in made]
        print(json.dumps({"path": str(args.path), **_facts(state), "files": listed}))
    else:
        print(f"Restored state {state.number}")
        for name, file, nbytes in made:
            print(f"  {file}  {size(nbytes)}, region {json.dumps(name)}")
        print(f"meta {json.dumps(state.meta)}")
    return 0


def compact(args: argparse.Namespace) -> int:
    """Does without all but the newest states."""
    from dirtytrack.cli import _report
    from dirtytrack.group import compact_group

    with ShowProgress("compact") as progress:
        done = compact_group(
            args.path,
            args.keep,
            compression=args.compression,
            fsync=not args.no_fsync,
            lock=args.lock,
            progress=progress,
            store_options=_options(args),
            grace_period=args.grace_period,
        )
    if args.json:
        print(json.dumps({"path": str(args.path), **done._asdict()}))
    else:
        begins = f"The group begins with state {done.number}"
        print(*_report.compacted(begins, done.removed, done.disk_bytes, done.freed_bytes), sep="\n")
    return 0


def _facts(state: GroupCheckpoint) -> dict[str, Any]:
    parts = [part._asdict() for part in state.parts]
    head = {"state": state.number, "created": state.created, "processes": state.world, "meta": state.meta}
    return {**head, "parts": parts}


def _open(args: argparse.Namespace) -> GroupChain:
    from dirtytrack.group import GroupChain

    return GroupChain(args.path, store_options=_options(args))


def _options(args: argparse.Namespace) -> Any:
    return store_options(args.store_options, args.path)[0]
