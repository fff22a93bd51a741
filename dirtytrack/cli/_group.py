"""What `dirtytrack checkpoint` does where a group of processes has saved."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dirtytrack._progress import ShowProgress
from dirtytrack._text import count, plain, size
from dirtytrack.cli._arguments import compact_options, store_options

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
    whole = [state.number for state in chain if state.number not in chain.damaged]
    if args.json:
        told = {"path": str(args.path), "newest": chain.newest.number, "intact": not problems}
        told["restorable"] = whole
        print(json.dumps({**told, "problems": [one._asdict() for one in problems]}))
    else:
        for problem in problems:
            print(plain(str(problem)))
        print(f"{count(len(chain), 'state')}, {'DAMAGED' if problems else 'all files intact'}.")
        print(f"The newest that can be restored is state {whole[-1]}." if whole else "None can be restored.")
    return 1 if problems else 0


def restore(args: argparse.Namespace) -> int:
    """Writes regions of a state to files, whichever process saved them."""
    from dirtytrack.errors import ChainError

    chain = _open(args)
    if isinstance(args.at, str):
        raise ChainError(f"a state of a group is called by its number, not by {args.at!r}")
    state = chain.newest if args.at is None else chain[args.at]
    skipped = None
    try:
        made = _extract(args, chain, state)
    except (ChainError, FileNotFoundError) as error:
        chain.verify()
        if state.number not in chain.damaged:
            raise  # it is not the files
        whole = [one for one in chain if one.number not in chain.damaged]
        if not whole:
            told = "None of the states can be restored: dirtytrack checkpoint verify says why"
            raise ChainError(f"{error}. {told}") from error
        if args.at is not None:
            raise ChainError(f"{error}. Without --at state {whole[-1].number} is restored") from error
        skipped, state = state.number, whole[-1]
        made = _extract(args, chain, state)
    if args.json:
        listed = [dict(zip(("region", "file", "nbytes"), one, strict=True)) for one in made]
        print(json.dumps({"path": str(args.path), **_facts(state), "files": listed}))
    else:
        older = (
            ""
            if skipped is None
            else f"; state {skipped} is damaged: dirtytrack checkpoint verify says where"
        )
        print(f"Restored state {state.number}{older}")
        for name, file, nbytes in made:
            print(f"  {file}  {size(nbytes)}, region {json.dumps(name)}")
        print(f"meta {json.dumps(state.meta)}")
    return 0


def compact(args: argparse.Namespace) -> int:
    """Does without all but the newest states."""
    from dirtytrack.cli import _report
    from dirtytrack.group import compact_group

    with ShowProgress("compact") as progress:
        done = compact_group(args.path, progress=progress, **compact_options(args))
    if args.json:
        print(json.dumps({"path": str(args.path), **done._asdict()}))
    else:
        begins = f"The group begins with state {done.number}"
        print(*_report.compacted(begins, done.removed, done.disk_bytes, done.freed_bytes), sep="\n")
    return 0


def _extract(
    args: argparse.Namespace, chain: GroupChain, state: GroupCheckpoint
) -> list[tuple[str, str, int]]:
    # The regions' names, files and sizes. No file has its name before all of them are complete.
    from dirtytrack.cli._extract import Extraction

    wanted = list(dict.fromkeys(args.region or state.names))
    parts = {name: state.part_of(name) for name in wanted}
    with ShowProgress("restore") as progress, ExitStack() as opened:
        chains = {part: opened.enter_context(chain.open_part(part)) for part in sorted({*parts.values()})}
        regions = [(chains[part], chains[part][part.id], name) for name, part in parts.items()]
        files = Extraction(args.into, args.format, args.force, progress).write_all(regions)
        sizes = [one.region(name, at=checkpoint.id).nbytes for one, checkpoint, name in regions]
    return list(zip(wanted, files, sizes, strict=True))


def _facts(state: GroupCheckpoint) -> dict[str, Any]:
    parts = [part._asdict() for part in state.parts]
    head = {"state": state.number, "created": state.created, "processes": state.world, "meta": state.meta}
    return {**head, "parts": parts}


def _open(args: argparse.Namespace) -> GroupChain:
    from dirtytrack.group import GroupChain

    return GroupChain(args.path, store_options=_options(args))


def _options(args: argparse.Namespace) -> Any:
    return store_options(args.store_options, args.path)[0]
