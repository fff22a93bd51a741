"""Ctrl-C anywhere: nothing is lost, and the very handler of the interrupt can save everything."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

import pytest

from _lib.checkpoint.intercept import COMMITTER, Gate, by, intercepted
from _lib.checkpoint.world import BLOCK, World, restored
from _lib.interrupts import STRIDE, Storm, interrupted_at, is_interrupted, traced
from _lib.raw import open_descriptors
from _lib.support import PAGE_SIZE, idle_threads, in_child
from _lib.tracked import open_cursors
from dirtytrack import Session
from dirtytrack.checkpoint import Chain, Checkpointer, restore

_MOST = 20_000  # points at most: a resume has the most


def _anywhere(frame: FrameType) -> bool:
    """Also in Python's own library, where locks are taken."""
    return frame.f_code.co_filename != __file__


def _check(path: Path, world: World) -> None:
    with Chain(path) as chain:
        assert chain.verify() == ()
    assert restored(path, world.sizes) == world.contents()


def _save_in_pause(checkpoints: Checkpointer) -> None:
    checkpoints.save(pause=nullcontext())


def _save_and_wait(checkpoints: Checkpointer) -> None:
    checkpoints.save(wait=True)


def _compact(checkpoints: Checkpointer) -> None:
    checkpoints.compact(wait=True)


@pytest.mark.slow
@traced
@pytest.mark.parametrize(
    ("verb", "bases", "staging", "others"),
    [
        (Checkpointer.save, 0, None, 0),
        (Checkpointer.save, 1, None, 0),
        (Checkpointer.save, 1, None, 1),
        (Checkpointer.save, 1, 4096, 0),
        (_save_and_wait, 1, None, 0),
        (_save_and_wait, 1, None, 1),
        (_save_in_pause, 0, None, 0),
        (_save_in_pause, 1, 4096, 0),
        (_save_in_pause, 1, None, 1),
        (Checkpointer.flush, 1, None, 0),
        (_compact, 1, None, 0),
    ],
)
def test_the_handler_of_an_interrupt_saves_everything(
    tmp_path: Path, verb: Callable[[Checkpointer], None], bases: int, staging: int | None, others: int
) -> None:
    """At every point in turn: a save in its ``except`` block is complete, and so is one after that.

    Beside other threads, and not compressed, it is written before its thread has the GIL.
    """

    def interrupted(session: Session, world: World, count: int) -> bool:
        path = tmp_path / str(count)
        path.mkdir()
        with world.checkpointer(path, session, others, staging_bytes=staging, max_pause=1e-9) as checkpoints:
            for _ in range(bases):
                checkpoints.save(wait=True)
            world.scribble()
            if verb is Checkpointer.flush:
                checkpoints.save()
            try:
                with interrupted_at(count, among=_anywhere):
                    verb(checkpoints)
            except KeyboardInterrupt:  # its traceback is alive, with all that the calls had
                world.touch()
                checkpoints.save(wait=True)
                _check(path, world)
            else:
                return False
            world.touch("third")
            checkpoints.save()
        _check(path, world)
        return True

    def child() -> int:
        with idle_threads(others), Session() as session:
            world = World(3, 1)
            return next(count for count in range(1, _MOST, STRIDE) if not interrupted(session, world, count))

    assert in_child(child).check() > 20


@pytest.mark.slow
@traced
@pytest.mark.parametrize("saves", [0, 1])
def test_an_interrupted_opening_leaves_nothing(tmp_path: Path, saves: int) -> None:
    """At every point in turn: neither a lock, nor a region, nor a cursor; and the next one opens."""

    def interrupted(session: Session, world: World, count: int) -> bool:
        path = tmp_path / str(count)
        with Checkpointer(path, world.regions, session=session, fsync=False) as checkpoints:
            for _ in range(saves):
                checkpoints.save()
        opened = None
        try:
            with interrupted_at(count):
                opened = Checkpointer.open(path, world.regions, session=session, fsync=False)
        except KeyboardInterrupt:
            pass
        finished = opened is not None
        if opened is not None:
            opened.close()
        assert session.regions == ()
        assert open_cursors(session) == 1
        Checkpointer.open(path, world.regions, session=session, fsync=False).close()
        return not finished

    def child() -> int:
        with Session() as session:
            world = World(3, 1)
            return next(count for count in range(1, _MOST, STRIDE) if not interrupted(session, world, count))

    assert in_child(child).check() > 100


@pytest.mark.slow
@traced
def test_interrupted_readers_close_their_files(tmp_path: Path) -> None:
    """At every point in turn; a descriptor is lost at most where it was just made or is being closed."""

    def child() -> None:
        world = World(3, 1)
        with Checkpointer(tmp_path, world.regions, fsync=False) as checkpoints:
            for _ in range(2):
                world.scribble()
                checkpoints.save()
        into = {name: bytearray(nbytes) for name, nbytes in world.sizes.items()}
        before, count = open_descriptors(), 0

        def read(count: int) -> None:
            with interrupted_at(count):
                restore(tmp_path, into=into)

        while is_interrupted(read, count := count + STRIDE):
            pass
        assert count > 500
        assert open_descriptors() <= before + count // STRIDE // 50 + 2

    in_child(child).check()


@pytest.mark.slow
@traced
def test_an_interrupted_close_can_be_repeated(tmp_path: Path) -> None:
    """At every point in turn: everything is committed, and nothing stays."""

    def interrupted(session: Session, world: World, count: int) -> bool:
        path = tmp_path / str(count)
        path.mkdir()
        checkpoints = Checkpointer(path, world.regions, session=session, fsync=False, keep=1)
        for _ in range(4):
            world.scribble()
            checkpoints.save()
        try:
            with interrupted_at(count, among=_anywhere):
                checkpoints.close()
        except KeyboardInterrupt:
            checkpoints.close()
            assert open_cursors(session) == 1
            assert session.regions == ()
        else:
            return False
        _check(path, world)
        with Checkpointer.resume(path, world.regions, session=session):  # the lock is free
            return True

    def child() -> int:
        with Session() as session:
            world = World(3, 1)
            return next(count for count in range(1, _MOST, STRIDE) if not interrupted(session, world, count))

    assert in_child(child).check() > 20


@contextmanager
def _impatient() -> Iterator[None]:
    """A user who presses Ctrl-C whenever something takes long."""

    def strike(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _save_much(checkpoints: Checkpointer) -> None:
    for _ in range(3):
        checkpoints.save()


@pytest.mark.parametrize(
    "verb", [Checkpointer.flush, _save_much, _compact, Checkpointer.close], ids=lambda verb: verb.__name__
)
def test_whoever_waits_for_a_slow_disk_can_be_interrupted(
    tmp_path: Path, verb: Callable[[Checkpointer], None]
) -> None:
    """And wait again: then it is committed."""

    def child() -> None:
        gate = Gate(by(COMMITTER))
        with intercepted(gate), Session() as session:
            world = World(3 * PAGE_SIZE // BLOCK, 1)  # touched, one page fills the staging memory
            checkpoints = Checkpointer(tmp_path, world.regions, session=session, staging_bytes=PAGE_SIZE)
            checkpoints.save(wait=True)
            gate.arm()
            world.touch()
            captured = world.contents()
            checkpoints.save()
            for _ in range(2):
                world.touch("third")
                with pytest.raises(KeyboardInterrupt), _impatient():
                    verb(checkpoints)
            gate.open()
            if verb is not Checkpointer.close:
                captured = world.contents()
                checkpoints.save()
            checkpoints.close()
            assert restored(tmp_path, world.sizes) == captured

    in_child(child).check()


@pytest.mark.slow
@pytest.mark.parametrize(("bursts", "staging", "others"), [(1, None, 0), (1, None, 1), (2, 4096, 0)])
def test_a_storm_of_interrupts_loses_nothing(
    tmp_path: Path, bursts: int, staging: int | None, others: int
) -> None:
    """A timer that strikes anywhere, also in the undoing of what it has interrupted."""

    def child() -> None:
        storm, draw = Storm(2, bursts), random.Random(1)
        with idle_threads(others), Session() as session:
            world = World(3, 1)
            while storm.struck < 400:
                path = tmp_path / str(storm.struck)
                with world.checkpointer(path, session, others, keep=2, staging_bytes=staging) as checkpoints:

                    def act() -> None:
                        world.scribble()
                        checkpoints.save(wait=draw.random() < 0.3)

                    for _ in range(20):
                        storm.round(act)
                    checkpoints.save(wait=True)
                    _check(path, world)

    in_child(child).check()
