"""Calls in the middle of others, by the handlers of signals and by destructors: none waits for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dirtytrack
from dirtytrack import CheckpointError, ClosedError
from dirtytrack.checkpoint import load
from dirtytrack.group import GroupChain, GroupCheckpointer, GroupSave
from dirtytrack.group.ballots import Ballots

Array = np.ndarray[Any, Any]
Call = Callable[[GroupCheckpointer, GroupSave, Array], object]


class Within(AbstractContextManager[None]):
    """Takes the place of the pause of a save, whose capture is under way when it is entered."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def __enter__(self) -> None:
        self._act()

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def array() -> Array:
    return dirtytrack.empty(64 * 4096, np.uint8)


@pytest.fixture
def checkpoints(tmp_path: Path, array: Array) -> GroupCheckpointer:
    return GroupCheckpointer.open(tmp_path / "group", {"a": array}, fsync=False)


def _newest(tmp_path: Path) -> tuple[Any, Array]:
    state = GroupChain(tmp_path / "group").newest
    (part,) = state.parts
    return state.meta, load(tmp_path / "group" / part.folder, at=part.id)["a"]


CALLS: dict[str, Call] = {
    "flush": lambda checkpoints, before, array: checkpoints.flush(),
    "save": lambda checkpoints, before, array: checkpoints.save("within"),
    "save and wait": lambda checkpoints, before, array: checkpoints.save("within", wait=True),
    "wait for the one before": lambda checkpoints, before, array: before.wait(),
    "bind": lambda checkpoints, before, array: checkpoints.bind({"a": array}),
}


@pytest.mark.parametrize("inner", CALLS)
def test_a_call_in_the_middle_of_a_save(
    tmp_path: Path, checkpoints: GroupCheckpointer, array: Array, inner: str
) -> None:
    """It is done at once, and so is the save around it; what is saved afterwards is all there."""
    with checkpoints:
        before = checkpoints.save("before")
        array[5] = 1
        around = checkpoints.save(
            "around", wait=True, pause=Within(lambda: CALLS[inner](checkpoints, before, array))
        )
        assert (before.state, around.state) == ("committed", "committed")
        array[9999] = 2
        checkpoints.save("after", wait=True)
    meta, found = _newest(tmp_path)
    assert meta == "after"
    assert (found == array).all()


def test_a_save_is_not_waited_for_in_the_middle_of_the_one_before(checkpoints: GroupCheckpointer) -> None:
    """That would be for ever."""

    def inner() -> None:
        within.append(checkpoints.save("within"))
        with pytest.raises(RuntimeError, match="wait for it then"):
            within[0].wait()

    within: list[GroupSave] = []
    with checkpoints:
        checkpoints.save("around", pause=Within(inner))
        within[0].wait()


def test_a_close_in_the_middle_of_a_save(
    tmp_path: Path, checkpoints: GroupCheckpointer, array: Array
) -> None:
    """What was saved before is committed; the save around it says that it is not."""
    array[5] = 1
    checkpoints.save("before")
    try:
        around = checkpoints.save("around", pause=Within(checkpoints.close))
    except ClosedError:
        pass
    else:
        with pytest.raises((TimeoutError, CheckpointError)):
            around.wait()
    assert checkpoints.closed
    meta, found = _newest(tmp_path)
    assert meta == "before"
    assert (found == array).all()


def test_calls_in_the_thread_that_votes(
    checkpoints: GroupCheckpointer, array: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a callback, or a destructor that runs there: refused, while another thread waits for that one."""
    refused: list[str] = []
    calls: list[Callable[[], object]] = [
        checkpoints.flush,
        checkpoints.save,
        lambda: checkpoints.bind({"a": array}),
    ]

    def call(_: GroupSave) -> None:
        for one in calls:
            with pytest.raises(RuntimeError, match="set a flag there, and call it later") as caught:
                one()
            refused.append(str(caught.value))
        checkpoints.close()  # as a destructor does

    gate, decide = threading.Event(), Ballots.decide

    def decide_late(*arguments: Any) -> object:
        gate.wait()
        return decide(*arguments)

    monkeypatch.setattr(Ballots, "decide", decide_late)
    with checkpoints:
        checkpoints.save(1).add_done_callback(call)
        gate.set()
        checkpoints.flush()
        assert len(refused) == len(calls)
        assert not checkpoints.closed
        checkpoints.save(2, wait=True)
    assert checkpoints.closed
