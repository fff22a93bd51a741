"""How the processes of a group find together when they open it. No save needs this any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

from dirtytrack.errors import GroupError

SHOWN = 5  # ranks, or names, in a message

_T = TypeVar("_T")


@runtime_checkable
class Coordinator(Protocol):
    """A process's way to the others of its group: write one for whatever starts yours.

    Values are what JSON can hold. All processes make the same calls, in the same order. A call that waits for
    others has to end within a bounded time, with an OSError such as TimeoutError, if one of them has died.

    Attributes:
        rank: of this process, from 0.
        world: how many there are.
    """

    rank: int
    world: int

    def gather(self, value: Any) -> list[Any] | None:
        """The values of all processes by rank, in the process of rank 0; None in the others."""

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, in every process."""

    def close(self) -> None:
        """Gives up what it holds; idempotent."""


class Alone:
    """The coordinator of a group of one process."""

    rank, world = 0, 1

    def gather(self, value: Any) -> list[Any]:
        """See `Coordinator`."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """See `Coordinator`."""
        return value

    def close(self) -> None:
        """See `Coordinator`."""


def agree(coordinator: Coordinator, mine: Callable[[], _T], decide: Callable[[list[_T]], Any]) -> Any:
    """Each process does its own; rank 0 decides what that comes to, and all are told.

    Raises:
        GroupError: another process failed; it says which, and why.
        Others: as *mine*, and in rank 0 as *decide*.
    """
    failure: Exception | None = None
    report: dict[str, Any]
    try:
        report = {"value": mine()}
    except Exception as error:
        failure, report = error, {"error": f"{type(error).__name__}: {error}"}
    reports = coordinator.gather(report)
    verdict: dict[str, Any] | None = None
    if reports is not None:
        errors = {rank: one["error"] for rank, one in enumerate(reports) if "error" in one}
        try:
            if errors:
                raise GroupError(_together(errors))
            verdict = {"value": decide([one["value"] for one in reports])}
        except Exception as error:
            failure = failure or error
            told = str(error) if errors else f"rank 0: {type(error).__name__}: {error}"
            verdict = {"error": told}
    verdict = coordinator.broadcast(verdict)
    assert verdict is not None
    if "error" in verdict:
        raise failure or GroupError(f"the group was not opened. {verdict['error']}")
    return verdict["value"]


def _together(errors: dict[int, str]) -> str:
    # What ranks say, each thing once.
    ranks: dict[str, list[int]] = {}
    for rank, told in errors.items():
        ranks.setdefault(told, []).append(rank)
    shown = [f"{ranks_of(some)}: {told}" for told, some in [*ranks.items()][:SHOWN]]
    return "; ".join([*shown, *[f"and {len(ranks) - SHOWN} other errors"] * (len(ranks) > SHOWN)])


def ranks_of(ranks: list[int]) -> str:
    """Some ranks, for a message."""
    shown = ", ".join(map(str, ranks[:SHOWN]))
    more = "" if len(ranks) <= SHOWN else f" and {len(ranks) - SHOWN} more"
    return f"rank{'s' * (len(ranks) > 1)} {shown}{more}"
