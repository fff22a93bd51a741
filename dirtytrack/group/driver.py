"""What a driver does, such as Ray's: it opens a group, and commits what its workers have prepared."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from dirtytrack.checkpoint.records import Keep, Options, Root, StoreOptions
from dirtytrack.errors import BusyError, ChainError, GroupError
from dirtytrack.group.garbage import collect
from dirtytrack.group.opening import check_names, open_run
from dirtytrack.group.record import Part, Record, as_record
from dirtytrack.group.records import Records, overtaken
from dirtytrack.group.settings import grace_of

_FORMAT = "dirtytrack group run"
_TRIES = 100  # to commit, beside nobody else of the run


def begin(path: os.PathLike[str] | str, at: int | None, store_options: StoreOptions | None) -> dict[str, Any]:
    """See `GroupCheckpointer.begin`."""
    root = Root.of(path, store_options)
    run = open_run(root, [], at, strict=False)
    return {"format": _FORMAT, "place": str(root.place), "record": run.to_json()}


def run_of(run: object, root: Root, records: Records) -> tuple[Record, int]:
    """The record by which a driver has opened a group, and the number of the newest state of its run.

    Raises:
        TypeError, ValueError: it is no such run, or of another place.
        BusyError: another run has opened the group since.
    """
    if not isinstance(run, Mapping):
        raise TypeError(
            f"at is the number of a state, or what GroupCheckpointer.begin() returned, not {run!r}"
        )
    try:
        if run["format"] != _FORMAT:
            raise ValueError(f"format {run['format']!r}")
        record = as_record(run["record"])
        place = str(run["place"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"at is not what GroupCheckpointer.begin() returned: {error!r}") from None
    if place != str(root.place):
        raise GroupError(f"the run is of the group in {place}, not in {root.place}")
    newest = records.newest()
    if newest is None:
        raise GroupError(f"record {record.number}, by which the run began, is not in {place} here")
    if newest.incarnation != record.incarnation:
        overtaken(place, newest)
    return record, newest.state


def vote(run: Record, part: Part, meta: str) -> dict[str, Any]:
    """What a worker has prepared, as plain data."""
    return {"run": run.run, "part": part, "meta": json.loads(meta)}


def commit(
    path: os.PathLike[str] | str,
    votes: Sequence[Mapping[str, Any]],
    strict: bool,
    keep: int | Keep | None,
    store_options: StoreOptions | None,
    grace_period: float | None,
) -> int:
    """See `GroupCheckpointer.commit`."""
    options = Options(keep=keep, grace_period=grace_period)
    root = Root.of(path, store_options)
    records = Records(root.bucket())
    if not votes:
        raise ValueError("there is no vote: commit() takes what each worker's prepare() has returned")
    parts, run, meta = _check_votes(votes)
    for _ in range(_TRIES):
        newest = records.newest()
        if newest is None:
            raise ChainError(f"{root.place} holds no group: GroupCheckpointer.begin() it")
        if newest.run != run:
            overtaken(str(root.place), newest)
        state = records.find(newest.state)
        if state is not None and state.run == run:
            if {*state.parts} == {*parts}:
                return state.number  # it was committed, and the answer got lost
            _check_newer(parts, state)
        if strict and state is not None:
            check_names(root, state, {name for part in parts for name in part.names})
        number = newest.number + 1
        made = Record(number, "committed", newest.incarnation, newest.opened, number, 0.0, len(parts), parts)
        made = made._replace(meta=meta, oldest=newest.oldest, kept=newest.kept)
        if options.policy is not None:
            made = made.retaining(options.policy, [*records.states(newest), made])
        there = records.offer(made)
        if there.parts == parts:
            if keep is not None:
                with suppress(OSError, ChainError):
                    collect(records, grace_of(root, options))
            return there.number
    raise BusyError(
        errno.EBUSY, f"commit to {root.place}", remedy="Others commit all the time: a run has one driver"
    )


def _check_newer(parts: tuple[Part, ...], state: Record) -> None:
    before = {part.folder: part.number for part in state.parts}
    for at, part in enumerate(parts):
        if part.number <= before.get(part.folder, 0):
            raise GroupError(
                f"vote {at} is of checkpoint {part.number} of its worker, and state {state.number} has its "
                f"{before[part.folder]}: a vote is for one state. Have all workers prepare() the next one"
            )


def _check_votes(votes: Sequence[Mapping[str, Any]]) -> tuple[tuple[Part, ...], str, Any]:
    try:
        parts = tuple(Part.of(one["part"]) for one in votes)
        runs = [str(one["run"]) for one in votes]
        metas = [one["meta"] for one in votes]
        for part, run in zip(parts, runs, strict=True):
            if not part.folder.startswith(f"parts/{run}/"):
                raise ValueError(f"folder {part.folder!r} of another run")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a vote is what prepare() has returned: {error!r}") from None
    for at, (run, meta) in enumerate(zip(runs, metas, strict=True)):
        if run != runs[0]:
            raise GroupError(f"vote {at} is of run {run}, and vote 0 of {runs[0]}: all are of one run")
        if meta != metas[0]:
            raise GroupError(f"vote {at} has another meta than vote 0: it has to be the same")
    owners: dict[str, int] = {}
    for at, part in enumerate(parts):
        for name in part.names:
            if owners.setdefault(name, at) != at:
                raise GroupError(f"vote {owners[name]} and vote {at} both have {name!r}")
    return parts, runs[0], metas[0]
