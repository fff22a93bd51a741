"""Objects that reallocate under their export: an error, before a byte is read or written there."""

from __future__ import annotations

import array
import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _lib.objects.movers import MOVERS, SMALL, TORCH_MOVERS, Mover
from _lib.objects.takers import save
from _lib.support import in_child
from dirtytrack import Region, RegionLostError, Session
from dirtytrack.barrier import CardTable, get_write_watch, reset_write_watch
from dirtytrack.checkpoint import Checkpointer, restore
from dirtytrack.snapshot import History, Snapshot, watch

ALL = {**MOVERS, **TORCH_MOVERS}


KINDS = [*MOVERS, *(pytest.param(kind, marks=pytest.mark.torch) for kind in TORCH_MOVERS)]


class Scene:
    """An object, tracked, in a directory of its own; what is opened on it is closed with the stack."""

    def __init__(self, mover: Mover, stack: ExitStack, path: Path) -> None:
        self.thing, self.stack, self.path = mover.thing, stack, path
        self.session = stack.enter_context(Session())

    def track(self) -> Region:
        return self.session.track(self.thing, name="thing")

    def checkpointer(self) -> Checkpointer:
        return self.stack.enter_context(
            Checkpointer(self.path / "chain", {"thing": self.thing}, session=self.session, fsync=False)
        )

    def snapshot(self) -> Snapshot:
        return self.stack.enter_context(Snapshot(self.session, self.thing))

    def history(self) -> History:
        return self.stack.enter_context(History(self.session, self.thing))


def _part(scene: Scene) -> Callable[[], object]:
    region = scene.track()
    return lambda: scene.session.collect(region[10:20])


def _cursor(scene: Scene) -> Callable[[], object]:
    scene.track()
    return scene.stack.enter_context(scene.session.cursor("another")).collect


def _mark(scene: Scene) -> Callable[[], object]:
    region = scene.track()
    return lambda: scene.session.mark(region[0:1])


def _view(scene: Scene) -> Callable[[], object]:
    region = scene.track()
    return lambda: region.view


def _get_write_watch(reset: bool) -> Callable[[Scene], Callable[[], object]]:
    def prepare(scene: Scene) -> Callable[[], object]:
        region, out = scene.track(), array.array("Q", bytes(800))
        return lambda: get_write_watch(region.address, region.nbytes, out, reset=reset)

    return prepare


def _reset_write_watch(scene: Scene) -> Callable[[], object]:
    region = scene.track()
    return lambda: reset_write_watch(region.address, region.nbytes)


def _first_save(scene: Scene) -> Callable[[], object]:
    checkpoints = scene.checkpointer()
    return lambda: checkpoints.save(wait=True)


def _second_save(scene: Scene) -> Callable[[], object]:
    checkpoints = scene.checkpointer()
    checkpoints.save(wait=True)
    return lambda: checkpoints.save(wait=True)


def _start(scene: Scene) -> Callable[[], object]:
    region = scene.track()
    return lambda: save(scene.path / "chain", thing=region)


def _restore(scene: Scene) -> Callable[[], object]:
    region = scene.track()
    save(scene.path / "chain", thing=bytearray(b"\1" * region.nbytes))
    return lambda: restore(scene.path / "chain", into={"thing": region})


def _resume(scene: Scene) -> Callable[[], object]:
    region = scene.track()
    save(scene.path / "chain", thing=bytearray(b"\1" * region.nbytes))
    return lambda: Checkpointer.resume(scene.path / "chain", {"thing": region}, fsync=False).close()


def _rollback(scene: Scene) -> Callable[[], object]:
    snapshot = scene.snapshot()
    snapshot.regions[0].view[:] = b"\1" * snapshot.regions[0].nbytes  # there is something to be put back
    return snapshot.rollback


def _new_snapshot(scene: Scene) -> Callable[[], object]:
    region = scene.track()
    return lambda: Snapshot(scene.session, region).close()


def _watched(scene: Scene) -> Callable[[], object]:
    watching = watch(scene.track())
    watching.__enter__()
    return lambda: watching.__exit__(None, None, None)


def _another_state(scene: Scene) -> Callable[[], object]:
    history = scene.history()
    history.save()
    return history.save


def _back_to_a_state(scene: Scene) -> Callable[[], object]:
    history = scene.history()
    state = history.save()
    history.regions[0].view[:] = b"\1" * history.regions[0].nbytes
    return lambda: history.restore(state)


def _apply(scene: Scene) -> Callable[[], object]:
    region = scene.track()
    model = scene.stack.enter_context(Session()).track(bytearray(region.nbytes), name="thing")
    with watch(model) as changes:
        model.view[:] = b"\1" * model.nbytes
    return lambda: changes.apply(region)


VERBS: dict[str, Callable[[Scene], Callable[[], object]]] = {
    "collect": lambda scene: scene.track().session.collect,
    "peek": lambda scene: scene.track().session.peek,
    "reset": lambda scene: scene.track().session.reset,
    "collect a part": _part,
    "collect by a cursor": _cursor,
    "mark": _mark,
    "view": _view,
    "get_write_watch": _get_write_watch(reset=False),
    "get_write_watch, reset": _get_write_watch(reset=True),
    "reset_write_watch": _reset_write_watch,
    "first save": _first_save,
    "second save": _second_save,
    "start a chain": _start,
    "restore": _restore,
    "resume": _resume,
    "new snapshot": _new_snapshot,
    "diff": lambda scene: scene.snapshot().diff,
    "advance": lambda scene: scene.snapshot().advance,
    "rollback": _rollback,
    "verify": lambda scene: scene.snapshot().verify,
    "watch": _watched,
    "first state": lambda scene: scene.history().save,
    "another state": _another_state,
    "back to a state": _back_to_a_state,
    "apply a diff": _apply,
}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _fill(place: tuple[int, int], value: int) -> None:
    ctypes.memset(place[0], value, place[1])


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_moves_is_lost(stack: ExitStack, kind: str) -> None:
    """At the next collect, until it is untracked; where it lies now it can be tracked anew."""
    mover = ALL[kind]()
    session = stack.enter_context(Session())
    region = session.track(mover.thing, name="thing")
    before = mover.place()
    _fill(before, 1)
    assert session.collect()[region] == region.page_set()
    mover.move()
    assert mover.place() != before
    for verb in (session.collect, session.peek, session.collect):
        with pytest.raises(RegionLostError, match="region 'thing'") as caught:
            verb()
        assert [(loss.region, loss.ranges) for loss in caught.value.losses] == [
            (region, (region.page_range,))
        ]
    assert region.lost
    session.untrack(region)
    again = session.track(mover.thing if mover.owner is None else mover.owner)
    assert again.address == mover.place()[0]
    _fill(mover.place(), 2)
    assert session.collect()[again] == again.page_set()


@pytest.mark.parametrize("kind", ["numpy, grows", "numpy, shrinks", "ctypes array"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_asks_first(tmp_path: Path, kind: str, verb: str) -> None:
    """Nothing is written: neither into what it has now, nor into what others have where it was."""

    def run() -> None:
        with ExitStack() as stack:
            mover = ALL[kind]()
            act = VERBS[verb](Scene(mover, stack, tmp_path))
            mover.move()
            others = [np.full(SMALL - 200, 7, np.uint8) for _ in range(8)]
            _fill(mover.place(), 7)
            with pytest.raises(RegionLostError, match=r"thing|'0'"):
                act()
            assert all((other == 7).all() for other in others)
            assert set(ctypes.string_at(*mover.place())) == {7}

    in_child(run).check()  # a byte written where the memory was may kill it


@pytest.mark.parametrize("look", ["take", "peek"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_moved_segment_has_all_its_cards_set(stack: ExitStack, kind: str, look: str) -> None:
    """Nothing is raised in a collector's pause: the table says which segment it is."""
    mover = ALL[kind]()
    table = stack.enter_context(CardTable(stack.enter_context(Session()), mover.thing, card_size=1))
    out = bytearray(table.nbytes)
    (segment,) = table.segments
    getattr(table, look)(out)  # what lies on the same pages may have been written
    assert table.lost == ()
    mover.move()
    assert getattr(table, look)(out) == len(table)
    assert table.lost == (segment,)


def _reshaped() -> tuple[Any, Callable[[], object]]:
    matrix = np.zeros(SMALL, np.uint8)
    return matrix, lambda: matrix.__setattr__("shape", (100, -1))


def _resized_to_the_same() -> tuple[Any, Callable[[], object]]:
    matrix = np.zeros(SMALL, np.uint8)
    return matrix, lambda: matrix.resize((100, SMALL // 100), refcheck=False)


def _ctypes_resized_to_the_same() -> tuple[Any, Callable[[], object]]:
    numbers = (ctypes.c_ubyte * SMALL)()
    return numbers, lambda: ctypes.resize(numbers, SMALL)


def _base_let_go() -> tuple[Any, Callable[[], object]]:
    view = np.zeros(SMALL, np.uint8)[100:-100]
    return view, gc.collect


STAYING: dict[str, Callable[[], tuple[Any, Callable[[], object]]]] = {
    "numpy, another shape": _reshaped,
    "numpy, resized to as many bytes": _resized_to_the_same,
    "ctypes, resized to as many bytes": _ctypes_resized_to_the_same,
    "numpy, of which only a view is known": _base_let_go,
}


@pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")
@pytest.mark.parametrize("kind", STAYING)
def test_what_stays_is_not_lost(stack: ExitStack, kind: str) -> None:
    """As long as address and length are the same."""
    thing, change = STAYING[kind]()
    session = stack.enter_context(Session())
    region = session.track(thing)
    change()
    session.collect()
    assert not region.lost
    region.view[0] = 1
    assert 0 in session.collect()[region]
