"""Cleaning up, whatever interrupts it."""

from __future__ import annotations

import pytest

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
