"""Cleaning up, whatever interrupts it."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress

import pytest

from dirtytrack._lifetime.closable import Owner
from dirtytrack._lifetime.undo import Undo


def test_undoing_goes_on_after_a_failure_and_can_be_repeated() -> None:
    """The last first; the first failure is raised, and the next close does all of it again."""
    done: list[str] = []
    broken = {"b", "c"}

    def act(name: str) -> None:
        done.append(name)
        if name in broken:
            raise OSError(name)

    undo = Undo()
    for name in "abcd":
        undo.callback(act, name)
    with pytest.raises(OSError, match="c"):
        undo.close()
    assert done == ["d", "c", "b", "a"]
    broken.clear()
    undo.close()
    undo.close()
    assert done == ["d", "c", "b", "a"] * 2


def test_an_interrupted_act_is_done_again_before_the_interrupt_is_raised() -> None:
    """Once or several times: nothing is left to do, and nothing that was undone is kept by the exception."""
    done: list[str] = []
    interrupts = [KeyboardInterrupt("first"), KeyboardInterrupt("second")]

    def act(name: str) -> None:
        done.append(name)
        if name == "b" and interrupts:
            raise interrupts.pop(0)

    undo = Undo()
    for name in "abc":
        undo.callback(act, name)
    with pytest.raises(KeyboardInterrupt, match="first"):
        undo.close()
    assert done == ["c", "b", "b", "b", "a"]
    undo.close()
    assert len(done) == 5


def test_who_is_interrupted_at_every_turn_gets_away() -> None:
    """An act that never ends otherwise is given up, and the next close tries anew."""
    undo = Undo()
    undo.callback(_interrupt)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            undo.close()


def test_a_failed_close_leaves_no_circle() -> None:
    """What the acts name goes with the exception, without a garbage collection."""
    undo, thing = Undo(), _Thing()
    undo.callback(thing.fail)
    alive = weakref.ref(thing)
    gc.disable()
    try:
        with suppress(OSError):
            undo.close()
        del undo, thing
        assert alive() is None
    finally:
        gc.enable()


def _interrupt() -> None:
    raise KeyboardInterrupt


class _Thing:
    def fail(self) -> None:
        raise OSError


class _Torn(Owner):
    """One whose opening was interrupted, and so was the undoing of that."""

    def __init__(self, done: list[str], *, is_open: bool) -> None:
        self._begun = undo = Undo()
        undo.callback(done.append, "undone")
        if is_open:
            self._begun = None

    def close(self) -> None:
        """Never called."""

    def _check(self) -> None:
        pass

    def _is_forgotten(self) -> bool:
        return False


@pytest.mark.parametrize("is_open", [False, True])
def test_an_opening_that_was_torn_is_undone_with_the_object(is_open: bool) -> None:
    """What was whole is not: a forked child closes such an object without undoing anything."""
    done: list[str] = []
    _Torn(done, is_open=is_open)
    assert done == ([] if is_open else ["undone"])
