"""The end of the interpreter, with objects that nobody closed: no crash, and nothing said but a warning."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

_KINDS = {
    "session": "one = dirtytrack.Session(); region = one.track(memory)",
    "default session": "one = dirtytrack.default_session(); region = one.track(memory)",
    "cursor": "session = dirtytrack.Session(); region = session.track(memory); one = session.cursor('a')",
    "snapshot": "session = dirtytrack.Session(); one = dirtytrack.snapshot.Snapshot(session, memory)",
    "history": "session = dirtytrack.Session(); one = dirtytrack.snapshot.History(session, memory)",
    "mirror": "session = dirtytrack.Session(); one = dirtytrack.Mirror(session, memory)",
    "card table": "session = dirtytrack.Session(); one = dirtytrack.barrier.CardTable(session, raw)",
    "checkpointer": "one = dirtytrack.checkpoint.Checkpointer.open(folder, {'a': memory}); one.save()",
    "chain": "with dirtytrack.checkpoint.Checkpointer.open(folder, {'a': memory}) as it: it.save()\n"
    "one = dirtytrack.checkpoint.Chain(folder)",
    "userfaultfd": "one = dirtytrack.kernel.userfaultfd.Userfaultfd()",
    "closed session": "one = dirtytrack.Session(); region = one.track(memory); one.close()",
}
_PLACES = {
    "nowhere": "",
    "a cycle": "callback.me = callback",
    "sys": "sys.keep = callback",
    "a hook": "sys.unraisablehook = callback",
    "the package": "dirtytrack.keep = callback",
    "another module": "import json; json.keep = callback",
    "an exit handler": "import atexit; atexit.register(callback)",
    "threading": "import threading; threading.excepthook = callback",
    "a weak dictionary": "import weakref; weakref.keep = weakref.WeakKeyDictionary({callback: callback})",
    "a context variable": "import contextvars; contextvars.ContextVar('x').set(callback)",
    "a codec": "import codecs; codecs.register_error('foo', callback)",
}
_PROGRAM = """
import sys, tempfile, dirtytrack, dirtytrack.snapshot, dirtytrack.barrier, dirtytrack.checkpoint
import dirtytrack.kernel.userfaultfd
folder = tempfile.mkdtemp()
raw = dirtytrack.alloc(16384)
memory = memoryview(raw)[100:9000]
{make}
def callback(*_): return one, memory
{keep}
print("end")
"""
_WARNING = re.compile(r"(?:.*ResourceWarning: .*\n(?:  .*\n)*(?:ResourceWarning: .*\n)?)*\Z")


# Every kind in one place, and one kind in every place; the rest is slow.
_PAIRS = [
    pytest.param(
        kind,
        place,
        marks=[] if place == "a hook" or kind == "snapshot" else [pytest.mark.slow],
        id=f"{kind}, {place}",
    )
    for kind in _KINDS
    for place in _PLACES
]


def test_a_warning_in_the_middle_of_another() -> None:
    """What shows the first one imports a module, and a collection in that import ends the second session."""
    program = "import dirtytrack\na, b = dirtytrack.Session(), dirtytrack.Session()\n"
    program += "x = {'a': a, 'b': b}; x['x'] = x; del a, b, x"
    command = [sys.executable, "-W", "default::ResourceWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "was never closed" in done.stderr
    assert _WARNING.match(done.stderr), done.stderr


@pytest.mark.parametrize(("kind", "place"), _PAIRS)
def test_nothing_but_warnings(kind: str, place: str) -> None:
    """Whatever still refers to the objects."""
    program = _PROGRAM.format(make=_KINDS[kind], keep=_PLACES[place])
    command = [sys.executable, "-W", "default::ResourceWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
    assert _WARNING.match(done.stderr), done.stderr
    if kind in ("session", "snapshot", "history", "mirror", "card table", "chain"):
        assert "was never closed" in done.stderr
