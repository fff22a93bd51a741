"""A recording of LMDB: where its transactions write, with both of its ways to do so."""

from __future__ import annotations

from pathlib import Path

import pytest

from _lib.support import PAGE_SIZE
from dirtytrack.profile import Recording
from dirtytrack.profile.recorder import Pace
from dirtytrack.profile.running import record

pytestmark = pytest.mark.slow

_STORE = """
def load(environment, records):
    with environment.begin(write=True) as transaction:
        for key, text in sorted(records.items()):
            transaction.put(key, text)

def change(environment, keys):
    with environment.begin(write=True) as transaction:
        for key in keys:
            transaction.put(key, transaction.get(key) + b"# changed")
"""
_PROGRAM = """
import lmdb, os, random, shutil, signal, store, sys, sysconfig
from pathlib import Path
records = {
    f"{path.name}:{number}".encode(): text
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-e]*.py"))
    for number, text in enumerate(path.read_bytes().split(b"\\n\\n"))
}
with lmdb.open("db", map_size=1 << 26, writemap=sys.argv[1] == "writemap", sync=False) as environment:
    os.kill(os.getpid(), signal.SIGURG)  # a look: from here on its map is watched
    store.load(environment, records)
    shutil.copy("db/data.mdb", "before")
    store.change(environment, random.Random(1).sample(sorted(records), 50))
    shutil.copy("db/data.mdb", "after")
"""


def _recorded(folder: Path, how: str, *, shared: bool) -> tuple[Recording, dict[str, int], int]:
    """A recording; different pages by memory in the transaction that changes; pages of the file that did."""
    (folder / "store.py").write_text(_STORE)
    (folder / "program.py").write_text(_PROGRAM)
    report, code = record(
        ["program.py", how], phases=["store:load", "store:change"], pace=Pace(60.0, 1.0), shared=shared
    )
    assert code == 0
    recording = report.recording
    (change,) = [phase for phase in recording.phases if phase.name == "store:change"]
    before, after = ((folder / name).read_bytes() for name in ("before", "after"))
    before = before.ljust(len(after), b"\0")
    starts = range(0, len(after), PAGE_SIZE)
    differ = sum(before[at : at + PAGE_SIZE] != after[at : at + PAGE_SIZE] for at in starts)
    return recording, {recording.areas[one.area].name: one.distinct for one in change.tallies}, differ


@pytest.fixture(autouse=True)
def _lmdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, and the current directory is the test's."""
    pytest.importorskip("lmdb")
    monkeypatch.chdir(tmp_path)


def test_a_map_that_is_written(tmp_path: Path) -> None:
    """With writemap each page of the file that a transaction changes is a page that was recorded."""
    recording, pages, differ = _recorded(tmp_path, "writemap", shared=True)
    data = str(tmp_path / "db/data.mdb")
    assert 30 < differ <= pages[data] <= 1.5 * differ
    (load,) = [phase for phase in recording.phases if phase.name == "store:load"]
    (loaded,) = [one.distinct for one in load.tallies if recording.areas[one.area].name == data]
    used = len((tmp_path / "before").read_bytes().rstrip(b"\0")) // PAGE_SIZE
    assert 5 * differ < 0.9 * used <= loaded <= used + 10


def test_a_map_that_is_read(tmp_path: Path) -> None:
    """Without it the map is read alone: pages are written in private memory, and from there to the file."""
    _, pages, differ = _recorded(tmp_path, "plain", shared=True)
    assert str(tmp_path / "db/data.mdb") not in pages
    private = sum(count for name, count in pages.items() if name == "[heap]" or name.startswith("anonymous"))
    assert 30 < differ <= private


def test_a_map_that_is_not_watched(tmp_path: Path) -> None:
    """The report says how much memory was left out, and what would watch it."""
    recording, pages, _ = _recorded(tmp_path, "writemap", shared=False)
    assert not any(name.startswith("/") for name in pages)
    assert any("64.0 MiB of shared memory and mapped files are not in it" in note for note in recording.notes)
