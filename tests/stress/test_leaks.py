"""Descriptors, mappings and memory stay what they are, however often everything is opened and closed."""

from __future__ import annotations

import gc
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import dirtytrack
from dirtytrack.barrier import CardTable
from dirtytrack.checkpoint import Checkpointer, restore
from dirtytrack.snapshot import History, Snapshot
from support import PAGE_SIZE, in_child

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
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    mappings = Path("/proc/self/maps").read_text().count("\n")
    return Held(len(os.listdir("/proc/self/fd")), mappings, pages * PAGE_SIZE)


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
    """The block calls what it yields with each round's number. The first tenth of them may fill caches."""
    before: list[Held] = []

    def look(number: int) -> None:
        if number % 20 == 0:
            gc.collect()  # of sessions and cursors, which refer to each other: waiting is no leak
        if number == rounds // 10:
            before.append(held())

    yield look
    (first,), last = before, held()
    print(f"after {rounds // 10}: {first}, after {rounds}: {last}")
    assert last.descriptors == first.descriptors
    assert last.mappings <= first.mappings + _ARENAS
    assert last.resident <= first.resident + _NOISE


@pytest.mark.slow
@pytest.mark.parametrize("what", ["session", "snapshot", "cards", "checkpoints"])
def test_nothing_grows(what: str, tmp_path: Path) -> None:
    """The same again and again, in a process of its own: nothing more is taken than in the beginning."""
    act = {"session": use_session, "snapshot": use_snapshot, "cards": use_cards}.get(what)
    rounds = SESSIONS if what == "session" else SESSIONS // 10 if act else SESSIONS // 50

    def child() -> None:
        memory = dirtytrack.alloc(_PAGES * PAGE_SIZE)
        with flat(rounds) as look:
            for number in range(rounds):
                (act or use_checkpoints(tmp_path))(memory, number)
                look(number)

    in_child(child, timeout=100 + SESSIONS / 50).check()


@pytest.mark.parametrize(
    ("leak", "word"),
    [
        (lambda: os.open("/dev/null", os.O_RDONLY), "descriptors"),
        (lambda: mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_SHARED), "mappings"),
        (lambda: bytes(10_000), "resident"),  # more than what was free before
        (lambda: None, ""),
    ],
    ids=["descriptor", "mapping", "bytes", "none"],
)
def test_a_leak_is_noticed(leak: Callable[[], object], word: str) -> None:
    """A descriptor, a mapping, or some bytes each time."""
    kept: list[object] = []

    def child() -> None:
        with flat(900) as look:
            for number in range(900):
                kept.append(leak())
                look(number)

    error = in_child(child).error
    assert word in error
    assert bool(error) == bool(word)
