"""What type checkers know of the interface: `make types` checks it, and that what is ignored is an error."""

from __future__ import annotations

import array
import ctypes
import mmap
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import dirtytrack
from dirtytrack import Epoch, PageSet, Region, Session
from dirtytrack.snapshot import Diff, History, State


def sessions(session: Session, epoch: Epoch) -> None:
    """Options are literals, and names find what they name."""
    Session(backend="compare", on_missed="warn")
    Session(backend="wp_async")  # type: ignore[arg-type]
    Session(on_missed="ignore")  # type: ignore[arg-type]
    assert_type(session["weights"], Region)
    assert_type(epoch["weights"], PageSet)
    assert_type(epoch[session["weights"]], PageSet)
    assert_type(session.cursors, tuple[dirtytrack.Cursor, ...])
    assert_type(dirtytrack.__version__, str)


class _Interface:
    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {}


class _Tensor:
    def untyped_storage(self) -> Any: ...


def memory(session: Session) -> None:
    """All that can be tracked, and some that can't."""
    session.track(bytearray(10))
    session.track(memoryview(bytearray(10)), name="view", sparse=False)
    session.track(mmap.mmap(-1, 10))
    session.track(array.array("d", [1.0]))
    session.track((ctypes.c_double * 3)())
    session.track(np.zeros(3))
    session.track((0x1000, 10))
    session.track(_Interface())
    session.track(_Tensor())
    session.track("abc")  # type: ignore[arg-type]
    session.track(5)  # type: ignore[arg-type]
    session.track([bytearray(10)])  # type: ignore[arg-type]
    session.track(None)  # type: ignore[arg-type]
    dirtytrack.Mirror(None, np.zeros(3)).update()
    dirtytrack.Mirror(session, session["weights"]).view.tobytes()
    dirtytrack.Mirror(session, "abc")  # type: ignore[arg-type]


def diffs(history: History, state: State) -> None:
    """Ways to compress are literals; states are what there is a diff of."""
    diff = history.diff(state, state, gap=8, max_nbytes=None)
    assert_type(diff, Diff)
    assert_type(diff.to_bytes(compress="zstd", before=False), bytes)
    assert_type(Diff.from_bytes(bytearray(9), max_nbytes=None).one_sided, bool)
    assert_type(diff[0].before, memoryview)
    assert_type(state.parent, State | None)
    diff.to_bytes(compress="gzip")  # type: ignore[arg-type]
    diff.to_bytes("zstd")  # type: ignore[call-arg]
    history.diff(state, 1)  # type: ignore[arg-type]
    History(None, bytearray(9), max_nbytes="1 GiB")  # type: ignore[arg-type]


def page_sets(pages: PageSet) -> None:
    """They combine with sets of numbers, and with nothing else."""
    assert_type(pages & {1, 2}, PageSet)
    assert_type(pages | frozenset({1}), PageSet)
    assert_type(pages - pages, PageSet)
    assert_type(pages ^ {np.int64(1)}, PageSet)
    assert_type(pages == {5}, bool)
    assert_type(pages <= {5}, bool)
    assert_type(list(pages), list[int])
    pages |= {5}
    pages & [1]  # type: ignore[operator]
    pages | {"a"}  # type: ignore[arg-type]


def arrays() -> None:
    """An array has the element type that was asked for."""
    assert_type(dirtytrack.empty(3), npt.NDArray[np.float64])
    assert_type(dirtytrack.empty((3, 4), np.float32), npt.NDArray[np.float32])
    assert_type(dirtytrack.empty(3, np.dtype(np.int8), huge=True), npt.NDArray[np.int8])
    assert_type(dirtytrack.empty(3, "f4"), npt.NDArray[Any])
    assert_type(dirtytrack.empty(3, bool), npt.NDArray[Any])
    dirtytrack.empty("a")  # type: ignore[arg-type]
