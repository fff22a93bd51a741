"""Cleaning up, whatever interrupts it."""

from __future__ import annotations

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
            raise KeyboardInterrupt(name)

    undo = Undo()
    for name in "abcd":
        undo.callback(act, name)
    with pytest.raises(KeyboardInterrupt, match="c"):
        undo.close()
    assert done == ["d", "c", "b", "a"]
    broken.clear()
    undo.close()
    undo.close()
    assert done == ["d", "c", "b", "a"] * 2


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
