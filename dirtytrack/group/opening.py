"""How a run begins: its processes have to fit together, and one of them opens the group for all."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Sequence
from typing import Any

from dirtytrack._lifetime.undo import Undo
from dirtytrack.checkpoint.records import Root
from dirtytrack.errors import GroupError
from dirtytrack.group.coordinator import SHOWN, Alone, Coordinator, agree
from dirtytrack.group.record import Record, as_record
from dirtytrack.group.records import Records
from dirtytrack.group.settings import Settings
from dirtytrack.group.voting import Voting


def join_together(
    coordinator: Coordinator | None,
    given: Callable[[], Settings],
    at: int | None,
    strict: bool,
    undo: Undo,
) -> Voting:
    """This process as one of a new run, once all of them fit together and are ready.

    Args:
        coordinator: of the processes, which is closed; None: there is only this one.
        given: the settings of this process; what is wrong with them the others are told, too.
        at: the number of the state to begin with. None: the newest.
        strict: whether all names of the group have to be there, and no others.
        undo: ends what this begins.

    Raises:
        GroupError: they don't fit together, or another one has failed.
        TypeError: it is no coordinator.
        Others: as `open_run`, in the process of rank 0; as *given*, and as `Voting`.
    """
    coordinator = Alone() if coordinator is None else coordinator
    if not isinstance(coordinator, Coordinator):
        raise TypeError(f"coordinator has rank, world, gather, broadcast and close, not {coordinator!r}")
    joined: list[Voting] = []
    try:
        settings: Settings | Exception
        try:
            settings = given()
        except Exception as error:
            settings = error
        run = _open_together(coordinator, settings, at, strict)
        assert isinstance(settings, Settings)  # else that was raised
        join = functools.partial(Voting, settings, run, coordinator.rank, undo)
        agree(coordinator, lambda: joined.append(join()), lambda _: None)
    finally:
        coordinator.close()
    return joined[0]


def _open_together(
    coordinator: Coordinator, settings: Settings | Exception, at: int | None, strict: bool
) -> Record:
    # The record by which rank 0 opens the group.

    def report() -> dict[str, Any]:
        if isinstance(settings, Exception):
            raise settings
        return {
            "place": settings.place,
            "world": coordinator.world,
            "names": sorted(settings.regions),
            "keep": repr(settings.keep),
        }

    def decide(reports: list[dict[str, Any]]) -> dict[str, Any]:
        assert isinstance(settings, Settings)
        _check_reports(reports)
        return open_run(settings.root, [one["names"] for one in reports], at, strict=strict).to_json()

    return as_record(agree(coordinator, report, decide))


def open_run(root: Root, names: Sequence[Sequence[str]], at: int | None, *, strict: bool) -> Record:
    """Opens a group for a new run.

    Args:
        root: where it is.
        names: of the parts of each process; none: a driver knows them.
        at: the number of the state to begin with. None: the newest.
        strict: whether these have to be the names of that state.

    Raises:
        FileExistsError: a chain is there that is no group's.
        GroupError: other names.
        Others: as `Records.open`.
    """
    if root.has_chain():
        told = "a chain of one process is there: choose another path for the group"
        raise FileExistsError(errno.EEXIST, told, str(root.place))
    records = Records(root.bucket())
    newest = records.newest()
    state = None if newest is None else records.find(newest.state if at is None else at)
    if strict and names and state is not None:
        check_names(root, state, {name for some in names for name in some})
    return records.open(names, at)


def check_names(root: Root, state: Record, ours: set[str]) -> None:
    """Makes sure that names are those of a state.

    Raises:
        GroupError: they are others.
    """
    theirs = {name for part in state.parts for name in part.names}
    missing, strange = sorted(theirs - ours), sorted(ours - theirs)
    if missing or strange:
        raise GroupError(
            f"the group in {root.place} has other parts: "
            + "; ".join(
                [f"no process has memory for {_listed(missing)}"] * bool(missing)
                + [f"it has no {_listed(strange)}"] * bool(strange)
            )
            + ". Open it with all its parts and no others, or with strict=False"
        )


def _check_reports(reports: list[dict[str, Any]]) -> None:
    owners: dict[str, int] = {}
    for rank, report in enumerate(reports):
        if report["place"] != reports[0]["place"]:
            raise GroupError(
                f"rank {rank} was given {report['place']}, and rank 0 {reports[0]['place']}: a group has one "
                "place. (Where each node has its own path, mirror= is that place.)"
            )
        if report["world"] != len(reports):
            raise GroupError(
                f"rank {rank} was told of {report['world']} processes, and rank 0 of {len(reports)}: "
                "give all coordinators the same number"
            )
        if report["keep"] != reports[0]["keep"]:
            raise GroupError(
                f"rank {rank} was given keep={report['keep']}, and rank 0 {reports[0]['keep']}: "
                "states are of all processes, so it has to be the same"
            )
        for name in report["names"]:
            if owners.setdefault(name, rank) != rank:
                raise GroupError(
                    f"rank {owners[name]} and rank {rank} both have {name!r}: a name belongs to one process. "
                    "What is the same everywhere one of them saves; what differs needs a name of its own"
                )


def _listed(names: list[str]) -> str:
    more = "" if len(names) <= SHOWN else f" and {len(names) - SHOWN} more"
    return ", ".join(map(repr, names[:SHOWN])) + more
