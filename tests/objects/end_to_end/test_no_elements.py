"""Arrays without an element: there is nothing to track, and yet they are a part of what is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _lib.objects.takers import save
from _lib.support import library
from dirtytrack import ChainError
from dirtytrack.checkpoint import Chain, Checkpointer, load, restore


def _tensor(make: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: make(library("torch"))


NUMPY: dict[str, Callable[[], Any]] = {
    "one axis": lambda: np.zeros(0),
    "two axes": lambda: np.zeros((3, 0), "f4"),
    "the other way round": lambda: np.zeros((0, 3), "i2"),
    "three axes, Fortran order": lambda: np.zeros((4, 0, 2), order="F"),
    "a part of an array": lambda: np.zeros((5, 4))[:, 2:2],
    "text": lambda: np.zeros(0, "U5"),
    "dates": lambda: np.zeros(0, "M8[ns]"),
    "structures": lambda: np.zeros((0, 2), [("a", "i4"), ("b", "f8")]),
    "a bytearray": lambda: bytearray(),
}
TORCH: dict[str, Callable[[], Any]] = {
    "tensor": _tensor(lambda torch: torch.empty(0)),
    "tensor of two axes": _tensor(lambda torch: torch.empty(3, 0, dtype=torch.int16)),
    "tensor of bfloat16": _tensor(lambda torch: torch.empty(0, 3, dtype=torch.bfloat16)),
    "part of a tensor": _tensor(lambda torch: torch.zeros(5, 4)[:, 2:2]),
    "parameter": _tensor(lambda torch: torch.nn.Parameter(torch.empty(0, 4))),
}
ALL = {**NUMPY, **TORCH}
KINDS = [*NUMPY, *(pytest.param(kind, marks=pytest.mark.torch) for kind in TORCH)]


def _shape(thing: Any) -> tuple[int, ...]:
    return tuple(np.shape(thing) if isinstance(thing, bytearray) else thing.shape)


def _numbers() -> np.ndarray[Any, Any]:
    return np.arange(5000.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lazy", [False, True])
def test_it_comes_back_beside_others(tmp_path: Path, kind: str, lazy: bool) -> None:
    """With its shape and its type; what lies before and behind it in the table is what it was."""
    thing = ALL[kind]()
    memories = {"before": _numbers(), "thing": thing, "behind": -_numbers()}
    with Checkpointer(tmp_path, memories, compression="none", fsync=False) as checkpoints:
        checkpoints.save()
        memories["behind"][7] = 7
        checkpoints.save()
    loaded = load(tmp_path, lazy=lazy)
    assert set(loaded) == {"before", "thing", "behind"}
    assert loaded["thing"].shape == _shape(thing)
    if isinstance(thing, np.ndarray):
        assert loaded["thing"].dtype == thing.dtype
    assert (loaded["before"] == memories["before"]).all()
    assert (loaded["behind"] == memories["behind"]).all()
    with Chain(tmp_path) as chain:
        assert chain.read("thing") == b""
        assert chain.verify() == ()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_restored_and_resumed_beside_others(tmp_path: Path, kind: str) -> None:
    """Into its like, and the chain goes on."""
    save(tmp_path, numbers=_numbers(), thing=ALL[kind]())
    into = {"numbers": np.zeros(5000), "thing": ALL[kind]()}
    restore(tmp_path, into=into)
    assert (into["numbers"] == _numbers()).all()
    again = {"numbers": np.zeros(5000), "thing": ALL[kind]()}
    with Checkpointer.resume(tmp_path, again, fsync=False) as checkpoints:
        again["numbers"][0] = 9
        checkpoints.save()
    assert load(tmp_path)["numbers"][0] == 9
    restore(tmp_path, into={"thing": ALL[kind]()})


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_all_that_there_is(tmp_path: Path, kind: str) -> None:
    """A chain of it alone is saved, loaded and resumed; meta is what it is for then."""
    thing = ALL[kind]()
    with Checkpointer(tmp_path, {"thing": thing}, fsync=False) as checkpoints:
        checkpoints.save(meta={"step": 1})
        checkpoints.save(meta={"step": 2})
    assert load(tmp_path)["thing"].shape == _shape(thing)
    assert restore(tmp_path, into={"thing": thing}) == {"step": 2}
    with Checkpointer.resume(tmp_path, {"thing": thing}, fsync=False) as checkpoints:
        assert checkpoints.meta == {"step": 2}


def test_several_are_not_tied(tmp_path: Path) -> None:
    """They share no memory, wherever their first element would lie."""
    one = np.zeros((5, 4))
    save(tmp_path, one=one, first=one[:0], second=one[:0], third=one[5:])
    assert [array.shape for array in load(tmp_path).values()] == [(5, 4), (0, 4), (0, 4), (0, 4)]


@pytest.mark.parametrize("how", ["restore", "resume"])
@pytest.mark.parametrize(
    "other", [np.zeros((0, 4)), np.zeros((3, 0)), np.zeros((0, 3), "f4"), np.zeros((1, 3))], ids=str
)
def test_it_fits_nothing_else(tmp_path: Path, other: np.ndarray[Any, Any], how: str) -> None:
    """Neither another shape nor another type; nor one element."""
    save(tmp_path, numbers=_numbers(), thing=np.zeros((0, 3)))
    into = {"numbers": np.zeros(5000), "thing": other}
    with pytest.raises(ChainError, match="region 'thing'"):
        if how == "restore":
            restore(tmp_path, into=into)
        else:
            Checkpointer.resume(tmp_path, into, fsync=False).close()
    assert not into["numbers"].any()


def test_it_takes_no_elements(tmp_path: Path) -> None:
    """What has some in the chain does not fit memory that has none."""
    save(tmp_path, thing=np.ones((1, 3)))
    with pytest.raises(ChainError, match="region 'thing'"):
        restore(tmp_path, into={"thing": np.zeros((0, 3))})
