"""The processes of a group, as threads of this one: with a coordinator that needs nothing but them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from dirtytrack.group import GroupChain

_PATIENCE = 60.0


class Meeting:
    """Where the threads of one start find together."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.values: list[Any] = [None] * world
        self.barrier = threading.Barrier(world, timeout=_PATIENCE)


class ThreadCoordinator:
    """See `Coordinator`."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.rank, self.world, self._meeting = rank, meeting.world, meeting
        self.is_closed = False

    def gather(self, value: Any) -> list[Any] | None:
        self._meeting.values[self.rank] = value
        self._wait()
        values = [*self._meeting.values] if self.rank == 0 else None
        self._wait()
        return values

    def broadcast(self, value: Any) -> Any:
        if self.rank == 0:
            self._meeting.values[0] = value
        self._wait()
        value = self._meeting.values[0]
        self._wait()
        return value

    def close(self) -> None:
        self.is_closed = True

    def _wait(self) -> None:
        try:
            self._meeting.barrier.wait()
        except threading.BrokenBarrierError as error:
            raise TimeoutError("a rank did not come") from error


def in_ranks(world: int, act: Callable[[ThreadCoordinator], Any]) -> list[Any]:
    """What *act* returns or raises in each of so many threads."""
    meeting = Meeting(world)
    results: list[Any] = [None] * world

    def run(rank: int) -> None:
        try:
            results[rank] = act(ThreadCoordinator(meeting, rank))
        except BaseException as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def no_errors(results: list[Any]) -> list[Any]:
    """The results, of which none is an exception; else the first one is raised."""
    for one in results:
        if isinstance(one, BaseException):
            raise one
    return results


def shards(names: list[str], rank: int, world: int, size: int = 3000) -> dict[str, np.ndarray]:
    """New memory for the names that are a rank's."""
    return {name: np.zeros(size, np.int64) for at, name in enumerate(names) if at % world == rank}


def step_on(arrays: dict[str, np.ndarray], step: int) -> None:
    """What a step of a training does to memory: some of it is the step's, and no two names have the same.

    Only some steps write all over it.
    """
    for name, array in arrays.items():
        array[: len(array) // (1 + step % 4) : 7 + step % 5] = step * 1000 + int(name.removeprefix("shard-"))
        array[step % len(array)] += 1


def after(name: str, steps: int, size: int = 3000) -> np.ndarray:
    """What a name's memory holds after so many steps."""
    arrays = {name: np.zeros(size, np.int64)}
    for step in range(1, steps + 1):
        step_on(arrays, step)
    return arrays[name]


def check_states(chain: GroupChain, names: list[str]) -> None:
    """Each state of a training whose meta tells its step is what it was then, and nothing is damaged."""
    for state in chain:
        for name in names:
            found = chain.load(name, at=state.number)
            np.testing.assert_array_equal(found, after(name, state.meta["step"]))
    assert chain.verify() == []
