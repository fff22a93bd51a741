"""Descriptors, mappings and memory stay what they are, however often everything is opened and closed."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE, resident_bytes
from dirtytrack.barrier import CardTable
from dirtytrack.checkpoint import Checkpointer, restore
from dirtytrack.snapshot import History, Snapshot

SESSIONS = int(os.environ.get("DIRTYTRACK_LEAK_SESSIONS", "2000"))
_PAGES = 16
_NOISE = 1 << 20  # bytes, of the allocators of Python and libc
_ARENAS = 8  # mappings of theirs


class Held(NamedTuple):
    """What a process has of the system."""

    descriptors: int
    mappings: int
    resident: int  # bytes


def held() -> Held:
    """What this one has now."""
    gc.collect()
    mappings = Path("/proc/self/maps").read_text().count("\n")
    return Held(len(os.listdir("/proc/self/fd")), mappings, resident_bytes())


def use_session(memory: mmap.mmap, number: int) -> None:
    """Open, track, write, collect, abort, close; what is said has to be so."""
    with dirtytrack.Session() as session:
        region = session.track(memory)
        page = number % _PAGES
        with session.cursor("second") as second:
            memory[page * PAGE_SIZE] = number % 256
            session.collect().abort()
            assert list(session.collect()[region]) == [page]
            assert list(second.peek()[region]) == [page]
        if number % 3 == 0:
            session.untrack(region)


def use_snapshot(memory: mmap.mmap, number: int) -> None:
    """Copy, change, roll back; a tree of two states."""
    with Snapshot(None, memory) as snapshot:
        memory[number % len(memory)] ^= 1
        assert snapshot.diff().nbytes == 1
        assert snapshot.rollback() == 1
    with History(None, memory) as history:
        state = history.save()
        memory[number % len(memory)] ^= 1
        history.restore(state)


def use_cards(memory: mmap.mmap, number: int) -> None:
    """Take the one card that was written."""
    with CardTable(None, memory, card_size=PAGE_SIZE) as cards:
        bitmap = bytearray(cards.nbytes)
        memory[number % len(memory)] ^= 1
        assert cards.take(bitmap) == 1


def use_checkpoints(folder: Path) -> Callable[[mmap.mmap, int], None]:
    """Save twice and read it back, each time going on with the same chain."""

    def act(memory: mmap.mmap, number: int) -> None:
        with Checkpointer.open(folder, {"memory": memory}) as checkpoints:
            memory[number % len(memory)] ^= 1
            checkpoints.save()
            checkpoints.compact()
        copy = bytearray(len(memory))
        restore(folder, into={"memory": copy})
        assert copy == memory[:]

    return act


@contextmanager
def flat(rounds: int) -> Iterator[Callable[[int], None]]:
    """The block calls what it yields with each round's number. The first half of them may fill caches."""
    before: list[Held] = []

    def look(number: int) -> None:
        if number % 20 == 0:
            gc.collect()  # of sessions and cursors, which refer to each other: waiting is no leak
        if number == rounds // 2:
            before.append(held())

    yield look
    (first,), last = before, held()
    print(f"after {rounds // 2}: {first}, after {rounds}: {last}")
    assert last.descriptors == first.descriptors
    assert last.mappings <= first.mappings + _ARENAS
    assert last.resident <= first.resident + _NOISE


USES: dict[str, Callable[[mmap.mmap, int], object]] = {
    "session": use_session,
    "snapshot": use_snapshot,
    "cards": use_cards,
}
LEAKS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "descriptors": lambda: os.open("/dev/null", os.O_RDONLY),
    "mappings": lambda: mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_SHARED),
    "resident": lambda: bytes(10_000),
}


def main(what: str, rounds: int, folder: Path) -> None:
    """What the process does that is watched."""
    memory, kept = dirtytrack.alloc(_PAGES * PAGE_SIZE), []
    act = USES.get(what) or use_checkpoints(folder)
    with flat(rounds) as look:
        for number in range(rounds):
            if what in LEAKS:
                kept.append(LEAKS[what]())
            else:
                act(memory, number)
            look(number)


def run(what: str, rounds: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Do it in a process of its own, whose allocators have nothing left over that could hide a leak."""
    command = [sys.executable, __file__, what, str(rounds), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout)
    return done


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "share"), [("session", 1), ("snapshot", 10), ("cards", 10), ("checkpoints", 50)]
)
def test_nothing_grows(what: str, share: int, tmp_path: Path) -> None:
    """The same again and again: nothing more is taken than in the beginning."""
    done = run(what, SESSIONS // share, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("what", LEAKS)
def test_a_leak_is_noticed(what: str, tmp_path: Path) -> None:
    """A descriptor, a mapping, or some bytes each time."""
    done = run(what, 900, tmp_path)
    assert (done.returncode == 0) == (what == "nothing")
    assert what == "nothing" or f"assert last.{what} " in done.stderr


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
