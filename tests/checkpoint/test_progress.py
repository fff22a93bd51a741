"""Progress: a callback is told how far it is, and a terminal shows it."""

from __future__ import annotations

import sys
from io import StringIO

import numpy as np
import pytest

import dirtytrack
from dirtytrack.checkpoint import Chain, Checkpointer, ShowProgress, compact, load, restore

BLOCK = 4096


class Told(list):
    """What a callback was told."""

    def __call__(self, done: int, total: int) -> None:
        self.append((done, total))

    def check(self) -> None:
        """It only grows, up to the whole."""
        assert self
        assert [done for done, _ in self] == sorted(done for done, _ in self)
        assert len({total for _, total in self}) == 1
        assert self[-1][0] == self[-1][1] > 0


@pytest.fixture
def chain(place):
    """A chain of an array of 4 MiB."""
    array = dirtytrack.empty(1 << 22, np.uint8)
    array[:] = np.random.default_rng(1).integers(0, 256, array.size, np.uint8)
    with Checkpointer(place, {"a": array}) as checkpoints:
        checkpoints.save()
        array[: 100 * BLOCK : BLOCK] ^= 1
        checkpoints.save()
    return place


@pytest.mark.parametrize("how", ["restore", "load", "resume", "open", "verify", "compact"])
def test_everything_long_tells_how_far_it_is(chain, how):
    """From little to all of it."""
    told = Told()
    array = dirtytrack.empty(1 << 22, np.uint8)
    if how == "restore":
        restore(chain, into={"a": array}, progress=told)
    elif how == "load":
        load(chain, progress=told)
    elif how in ("resume", "open"):
        with getattr(Checkpointer, how)(chain, {"a": array}, progress=told):
            pass
    elif how == "verify":
        with Chain(chain) as opened:
            opened.verify(told)
    else:
        compact(chain, 1, progress=told)
    told.check()
    if how in ("restore", "load", "resume", "open"):
        assert told[-1][1] == 1 << 22


def test_a_callback_may_end_it(chain):
    """Its exception is the restore's."""

    def fail(done: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        restore(chain, into={"a": dirtytrack.empty(1 << 22, np.uint8)}, progress=fail)


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("has_rich", [True, False])
def test_a_terminal_shows_it(monkeypatch, has_rich):
    """As a bar of rich, or as a line; nothing of it stays."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    if has_rich:
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    with ShowProgress("restore") as progress:
        progress(1 << 20, 1 << 22)
    shown = stream.getvalue()
    assert "restore" in shown
    assert ("1.0/4.2 MB" in shown or "1.0/4.0 MiB" in shown) if has_rich else "25 % of 4.0 MiB" in shown
    assert shown.endswith(("\x1b[2K", "\x1b[K", "\x1b[1A", "\x1b[?25h\r\x1b[1A\x1b[2K"))


def test_no_terminal_shows_nothing(monkeypatch):
    """A file, or a pipe."""
    stream = StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with ShowProgress("restore") as progress:
        progress(1, 2)
    assert stream.getvalue() == ""
