"""Where a TorchCheckpointer begins: with a new chain, or with the state of one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from dirtytrack.checkpoint import Chain, Checkpointer, catch_up
from dirtytrack.checkpoint.records import Root
from dirtytrack.errors import ChainError
from dirtytrack.torch._commits import Commits
from dirtytrack.torch._plan import Plan
from dirtytrack.torch._saved import Saved
from dirtytrack.torch._saver import StateSaver
from dirtytrack.torch._sources import Source, states_of

_SHOWN = 4
_DCP_FILE = ".metadata"  # of DCP's own writer of files
_OF_PLACES = {"fsync", "lock", "store_options"}  # keywords


def open_checkpoints(
    path: Any,
    sources: Mapping[str, Source],
    at: int | str | None,
    strict: bool,
    options: Mapping[str, Any],
) -> StateSaver:
    """Starts a chain, or gives the sources the state that it has.

    Raises:
        As `TorchCheckpointer.open`.
    """
    parts = states_of(sources)
    plan = Plan(parts)
    store_options = options.get("store_options")
    if options.get("mirror") is not None:
        store_options = None  # which are the mirror's
        given = {name: options[name] for name in _OF_PLACES & options.keys()}
        catch_up(path, options["mirror"], **given)
    with ExitStack() as undo:
        try:
            chain = undo.enter_context(Chain(path, store_options=store_options))
        except FileNotFoundError:
            if at is not None:
                raise
            return _start(path, plan, options)
        except ChainError as error:  # nothing is there, or too much
            if at is not None:
                raise
            _refuse_dcp(path)
            try:
                return _start(path, plan, options)
            except FileExistsError:
                raise error from None
        saved, checkpoints = _restore(path, chain, at, sources, plan, strict, options)
    try:
        saved.give(sources)
        parts = states_of(sources)
        plan = Plan(parts, plan, saved.packed)
        checkpoints.bind(plan.regions)
        plan.write(parts)
    except BaseException:
        checkpoints.close()
        raise
    return StateSaver(plan, checkpoints)


def _start(path: Any, plan: Plan, options: Mapping[str, Any]) -> StateSaver:
    return StateSaver(plan, Checkpointer(path, plan.regions, **options))


def _refuse_dcp(path: Any) -> None:
    # A training that went on in such a directory would begin anew without a word.
    root = Root.of(path)
    if not isinstance(root.place, Path):
        return
    if Commits(root).numbers():
        who, how = "a DcpWriter", "dcp.load and DcpReader"
    elif (root.place / _DCP_FILE).is_file():
        who, how = "torch.distributed.checkpoint", "dcp.load"
    else:
        return
    raise ChainError(
        f"{path} holds no training: {who} has saved there. Load it by {how}, or choose another path"
    )


def _restore(
    path: Any,
    chain: Chain,
    at: int | str | None,
    sources: Mapping[str, Source],
    live: Plan,
    strict: bool,
    options: Mapping[str, Any],
) -> tuple[Saved, Checkpointer]:
    # If the newest state turns out damaged, the newest one that does not need the damaged file.
    while True:
        known = len(chain.problems)
        if not chain.checkpoints:
            reasons = "; ".join(map(str, chain.problems[:_SHOWN]))
            raise ChainError(f"{chain.path} holds no complete checkpoint. {reasons}")
        checkpoint = chain.newest if at is None else chain[at]
        try:
            saved = Saved(chain, checkpoint)
        except ChainError:
            if at is not None or len(chain.problems) == known:
                raise
            continue
        saved.aim(live, sources, strict=strict)
        try:
            checkpoints = Checkpointer.resume(path, saved.regions, at=saved.id, strict=False, **options)
        except ChainError:
            chain.verify()
            if at is not None or len(chain.problems) == known:
                raise
            continue
        torch.autograd.graph.increment_version(saved.in_place)
        return saved, checkpoints
