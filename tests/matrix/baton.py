"""A chain of checkpoints that goes from machine to machine, and what its epochs have to hold.

Everything follows from the number of an epoch, so whoever reads the chain knows every byte of it.
"""

from __future__ import annotations

import os
import platform
import random
import re
from pathlib import Path
from typing import Any

import numpy as np

from dirtytrack import ChainError
from dirtytrack.checkpoint import Chain, Checkpointer, load

Memories = dict[str, np.ndarray[Any, Any]]


def blank() -> Memories:
    """The regions before the first epoch; neither ends with a page."""
    return {"numbers": np.zeros((300, 101), np.int64), "bytes": np.zeros(100_001, np.uint8)}


def evolve(memories: Memories, number: int) -> Memories:
    """The regions of that epoch, from those before it: a table grows, and another region comes and goes."""
    grown = np.full((300 + 40 * number, 101), number, np.int64)
    grown[: len(memories["numbers"])] = memories["numbers"]
    some = {"some": np.full(5000, number, np.uint16)} if number % 2 else {}
    return {"numbers": grown, "bytes": memories["bytes"], **some}


def advance(memories: Memories, number: int) -> None:
    """From the epoch before *number* to that one: a few places are written."""
    draw = random.Random(number)
    for memory in memories.values():
        flat = memory.reshape(-1)
        for _ in range(5):
            start = draw.randrange(flat.size)
            flat[start : start + draw.randrange(1, 3000)] = draw.randrange(100)


def hand_on(path: Path) -> None:
    """Go on with the chain from its newest epoch, or begin it, and save one more."""
    memories, before = blank(), _newest(path)
    for number in range(before + 1):
        memories = evolve(memories, number)
    with Checkpointer.open(path, memories) as checkpoints:
        memories = evolve(memories, before + 1)
        advance(memories, before + 1)
        checkpoints.bind(memories)
        checkpoints.save(meta={"number": before + 1, "by": whoami()}, wait=True)


def check(path: Path) -> list[str]:
    """Compare every epoch with what it has to hold, and return by whom they are, oldest first."""
    expected, by = blank(), []
    with Chain(path) as chain:
        assert chain.verify() == ()
        epochs = list(chain)
    for number, epoch in enumerate(epochs):
        expected = evolve(expected, number)
        advance(expected, number)
        assert epoch.meta["number"] == number
        found = load(path, at=epoch.number)
        assert found.keys() == expected.keys()
        for name, array in found.items():
            assert np.array_equal(array, expected[name]), (number, name)
        by.append(epoch.meta["by"])
    return by


def _newest(path: Path) -> int:
    try:
        with Chain(path) as chain:
            number: int = chain.newest.meta["number"]
            return number
    except (FileNotFoundError, ChainError):
        return -1


def whoami() -> str:
    """This machine, in a few words."""
    release = re.split(r"[^\d.]", platform.release(), maxsplit=1)[0]
    return f"{release} on {platform.machine()}, pages of {os.sysconf('SC_PAGE_SIZE') >> 10} KiB"
