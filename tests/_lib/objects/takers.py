"""Every way in which the library is handed an object that holds memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dirtytrack import Session
from dirtytrack.barrier import CardTable
from dirtytrack.checkpoint import Checkpointer, restore
from dirtytrack.snapshot import History, Snapshot, watch


def save(path: Path, **memories: object) -> None:
    """Write a chain of one epoch."""
    with Checkpointer(path, memories, fsync=False) as checkpoints:
        checkpoints.save()


def _track(thing: object, path: Path, nbytes: int) -> None:
    with Session() as session:
        session.track(thing)


def _start(thing: object, path: Path, nbytes: int) -> None:
    save(path / "started", thing=thing)


def _open(thing: object, path: Path, nbytes: int) -> None:
    with Checkpointer.open(path / "opened", {"thing": thing}, fsync=False) as checkpoints:
        checkpoints.save()


def _resume(thing: object, path: Path, nbytes: int) -> None:
    save(path / "chain", thing=bytearray(nbytes))
    Checkpointer.resume(path / "chain", {"thing": thing}, fsync=False).close()


def _restore(thing: object, path: Path, nbytes: int) -> None:
    save(path / "chain", thing=bytearray(nbytes))
    restore(path / "chain", into={"thing": thing})


def _snapshot(thing: object, path: Path, nbytes: int) -> None:
    Snapshot(None, thing).close()


def _history(thing: object, path: Path, nbytes: int) -> None:
    History(None, thing).close()


def _watch(thing: object, path: Path, nbytes: int) -> None:
    with watch(thing):
        pass


def _apply(thing: object, path: Path, nbytes: int) -> None:
    model = bytearray(nbytes)
    with watch(model) as changes:
        model[0] = 1
    changes.apply(thing)


def _card_table(thing: object, path: Path, nbytes: int) -> None:
    CardTable(None, thing, card_size=1).close()


#: What hands an object in, called with the object, a directory of its own, and the object's length in bytes.
TAKERS: dict[str, Callable[[Any, Path, int], None]] = {
    "track": _track,
    "start": _start,
    "open": _open,
    "resume": _resume,
    "restore": _restore,
    "snapshot": _snapshot,
    "history": _history,
    "watch": _watch,
    "apply": _apply,
    "card table": _card_table,
}


def every_kind_and_taker(kinds: Iterable[str], typical: str) -> list[tuple[str, str]]:
    """Pairs of a kind of object and a taker: every kind with some takers, a typical one with all.

    What an object is, is asked in one place, so the product of both would test the same many times.
    """
    return [
        (kind, take) for kind in kinds for take in TAKERS if kind == typical or take in ("track", "restore")
    ]
