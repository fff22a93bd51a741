"""A save of two processes as one state, beside a save of one of them alone."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

import dirtytrack
from dirtytrack.checkpoint import Checkpointer
from dirtytrack.group import GroupCheckpointer, file_coordinator

from .fixtures import PAGE, size, some_pages, touched
from .harness import Budget, Outcome, Scale, Side, compare, require_memory, row

_ALLOWED = 0.005  # seconds that a step may wait for the group


@row("group-save", Budget(1.0))
def group_save(scale: Scale) -> Iterator[Outcome]:
    """What a step waits for: the save of its own part, and less than 5 ms."""
    nbytes = scale.gib(1) // 4
    require_memory(4 * nbytes)
    with tempfile.TemporaryDirectory() as folder:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            code = 1
            try:
                _other(Path(folder), reader, nbytes)
                code = 0
            finally:
                os._exit(code)
        os.close(reader)
        try:
            yield from _measure(scale, Path(folder), writer, nbytes)
        finally:
            os.waitpid(pid, 0)


def _measure(scale: Scale, folder: Path, writer: int, nbytes: int) -> Iterator[Outcome]:
    with ExitStack() as undo:
        undo.callback(os.close, writer)
        session = undo.enter_context(dirtytrack.Session())
        ours, own = touched(nbytes), touched(nbytes)
        meet = file_coordinator(folder / "meeting", 0, 2)
        group = GroupCheckpointer.open(
            folder / "group", {"a": session.track(ours)}, coordinator=meet, session=session
        )
        undo.enter_context(group)
        undo.callback(os.write, writer, b"e")  # the other one closes, too
        alone = undo.enter_context(Checkpointer(folder / "own", {"a": session.track(own)}, session=session))

        def dirty(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], pair: int) -> None:
            group.flush()
            alone.flush()
            array[some_pages(nbytes // PAGE, 0.01, pair) * np.uint64(PAGE)] += 1

        def begin(pair: int) -> None:
            dirty(ours, pair)
            os.write(writer, b"s")  # the other one saves at the same time

        def save_alone() -> None:
            alone.save()
            time.sleep(_ALLOWED)

        yield compare(
            f"save() of a group of two, 1 % of {size(nbytes)} each",
            Side(lambda: group.save(), begin),
            Side(save_alone, lambda pair: dirty(own, pair), "a Checkpointer's own save, and 5 ms"),
            pairs=scale.repeat(30),
        )


def _other(folder: Path, reader: int, nbytes: int) -> None:
    array = touched(nbytes)
    meet = file_coordinator(folder / "meeting", 1, 2)
    with (
        dirtytrack.Session() as session,
        GroupCheckpointer.open(
            folder / "group", {"b": session.track(array)}, coordinator=meet, session=session
        ) as group,
    ):
        step = 0
        while os.read(reader, 1) == b"s":
            step += 1
            array[some_pages(nbytes // PAGE, 0.01, step) * np.uint64(PAGE)] += 1
            group.save()
