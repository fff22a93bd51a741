"""Calls of a Checkpointer within its own calls, as handlers and destructors make them: all are done."""

from __future__ import annotations

import errno
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import pytest

from _lib.checkpoint.intercept import COMMITTER, Fault, by, intercepted
from _lib.checkpoint.world import World, restored
from _lib.interrupts import STRIDE, interrupted_at, traced
from _lib.support import idle_threads, in_child
from dirtytrack import CheckpointError, Session
from dirtytrack.checkpoint import Chain, Checkpointer, Save

_MOST = 20_000  # points at most

Verb = Callable[[Checkpointer], Save | None]


def _anywhere(frame: FrameType) -> bool:
    """Also in Python's own library, where locks are taken."""
    return frame.f_code.co_filename != __file__


@contextmanager
def _once() -> Iterator[None]:
    """A pause that can be entered only once."""
    yield


def _save(checkpoints: Checkpointer) -> Save:
    return checkpoints.save()


def _save_and_wait(checkpoints: Checkpointer) -> Save:
    return checkpoints.save(wait=True)


def _save_in_pause(checkpoints: Checkpointer) -> Save:
    return checkpoints.save(pause=_once())


def _flush(checkpoints: Checkpointer) -> None:
    checkpoints.flush()


def _compact(checkpoints: Checkpointer) -> None:
    checkpoints.compact()


def _in_child(point: Callable[[Session, World, int], bool], others: int = 0) -> int:
    """Goes through the points, each `STRIDE`th from the first on; returns about how many there were."""

    def child() -> int:
        with idle_threads(others), Session() as session:
            world = World(3, 1)
            return next(count for count in range(1, _MOST, STRIDE) if not point(session, world, count))

    return int(in_child(child).check())


@pytest.mark.slow
@traced
@pytest.mark.parametrize("inner", [_save, _save_and_wait, _save_in_pause])
@pytest.mark.parametrize(
    ("outer", "bases", "staging", "others"),
    [
        (_save, 0, None, 0),
        (_save, 1, None, 0),
        (_save, 1, None, 1),
        (_save, 1, 4096, 0),
        (_save_and_wait, 1, None, 0),
        (_save_in_pause, 0, 4096, 0),
        (_save_in_pause, 1, None, 0),
        (_save_in_pause, 1, None, 1),
        (_flush, 1, None, 0),
        (_compact, 1, None, 0),
    ],
)
def test_a_save_within(
    tmp_path: Path, outer: Verb, bases: int, staging: int | None, others: int, inner: Verb
) -> None:
    """At every point in turn: both are committed, and each is the state of its time."""

    def point(session: Session, world: World, count: int) -> bool:
        path, made = tmp_path / str(count), []
        path.mkdir()
        with world.checkpointer(path, session, others, staging_bytes=staging, max_pause=1e-9) as checkpoints:

            def handle() -> None:
                world.touch("third")
                made.append((inner(checkpoints), world.contents()))

            for _ in range(bases):
                checkpoints.save()
            world.scribble()
            before = world.contents()
            with interrupted_at(count, among=_anywhere, by=handle):
                done = outer(checkpoints)
            checkpoints.flush()
            for save, contents in made:
                assert save.state == "committed"
                assert restored(path, world.sizes, at=save.number) == contents
            if done is not None:
                came_later = not made or done.number > made[0][0].number
                assert done.state == "committed"
                assert restored(path, world.sizes, at=done.number) == (
                    world.contents() if came_later else before
                )
            world.touch()
            checkpoints.save(wait=True)
        with Chain(path) as chain:
            assert chain.verify() == ()
        assert restored(path, world.sizes) == world.contents()
        return bool(made)

    assert _in_child(point, others) > 20


@pytest.mark.slow
@traced
@pytest.mark.parametrize("inner", [_flush, _compact, Checkpointer.close])
@pytest.mark.parametrize(
    ("outer", "others"),
    [(_save, 0), (_save, 1), (_save_and_wait, 0), (_save_in_pause, 0), (_flush, 0), (_compact, 0)],
)
def test_another_call_within(
    tmp_path: Path, outer: Verb, others: int, inner: Callable[[Checkpointer], None]
) -> None:
    """At every point in turn: the outer one is done as if nothing was, and a close then takes effect."""

    def point(session: Session, world: World, count: int) -> bool:
        path, handled = tmp_path / str(count), []
        path.mkdir()
        checkpoints = world.checkpointer(path, session, others, max_pause=1e-9)
        checkpoints.save()
        world.scribble()
        done = None
        with interrupted_at(count, among=_anywhere, by=lambda: handled.append(inner(checkpoints))):
            try:
                done = outer(checkpoints)
            except ValueError:
                assert checkpoints.closed  # before the call had its turn
        assert checkpoints.closed == (bool(handled) and inner is Checkpointer.close)
        checkpoints.close()
        if done is not None:
            assert done.state == "committed"
            assert restored(path, world.sizes) == world.contents()
        with Chain(path) as chain:
            assert chain.verify() == ()
        assert session.regions == ()
        return bool(handled)

    assert _in_child(point, others) > 20


@pytest.mark.slow
@traced
def test_a_failure_told_within(tmp_path: Path) -> None:
    """The disk is full, and a call in the middle is told: whoever waits for its own save is told, too."""

    def point(session: Session, world: World, count: int) -> bool:
        path, told = tmp_path / str(count), []
        path.mkdir()
        with Checkpointer(path, world.regions, session=session, fsync=False) as checkpoints:

            def handle() -> None:
                told.append(1)
                with suppress(CheckpointError):
                    checkpoints.flush()

            checkpoints.save(wait=True)
            world.scribble()
            world.touch()
            save = None
            with (
                intercepted(Fault(1, errno.ENOSPC, counts=by(COMMITTER))),
                suppress(CheckpointError),
                interrupted_at(count, among=_anywhere, by=handle),
            ):
                save = checkpoints.save(wait=True)
            assert save is None or save.state == "committed"
            checkpoints.save(wait=True)
        assert restored(path, world.sizes) == world.contents()
        return bool(told)

    assert _in_child(point) > 20


@pytest.mark.slow
def test_a_destructor_saves_in_the_middle_of_everything(tmp_path: Path) -> None:
    """Garbage is collected all the time; in the thread that writes, the call is refused; nothing hangs."""

    def child() -> None:
        made: list[Save] = []
        refused: list[RuntimeError] = []

        class Cycle:
            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                if len(made) < 100:
                    try:
                        made.append(checkpoints.save(wait=len(made) % 3 == 0))
                    except RuntimeError as error:
                        refused.append(error)

        world = World(3, 1)
        threshold = gc.get_threshold()
        with Checkpointer(tmp_path, world.regions, fsync=False) as checkpoints:
            gc.set_threshold(5, 1, 1)
            try:
                for _ in range(50):
                    world.scribble()
                    Cycle()
                    checkpoints.save()
            finally:
                gc.set_threshold(*threshold)
            checkpoints.flush()
            assert all(save.state == "committed" for save in made)
            assert len(made) > 10
            checkpoints.save(wait=True)
        assert all("destructor" in str(error) for error in refused)
        with Chain(tmp_path) as chain:
            assert chain.verify() == ()
        assert restored(tmp_path, world.sizes) == world.contents()

    in_child(child).check()
