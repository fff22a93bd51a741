"""What notebooks show of a chain and of a diff."""

from __future__ import annotations

import numpy as np

import dirtytrack
from dirtytrack.checkpoint import Chain, Checkpointer
from dirtytrack.snapshot import Snapshot


def test_a_chain(place):
    """A row for each checkpoint, with a bar of its size; also when it is closed."""
    array = dirtytrack.empty(1 << 20, np.uint8)
    array[:] = np.random.default_rng(1).integers(0, 256, array.size, np.uint8)
    with Checkpointer(place, {"a": array}) as checkpoints:
        checkpoints.save(meta={"step": "<b>"})
        array[0] ^= 1
        checkpoints.save()
    with Chain(place) as chain:
        shown = chain._repr_html_()
    assert shown.count("<tr>") == 3
    assert "base" in shown
    assert "&lt;b&gt;" in shown
    assert "width:120.0px" in shown
    assert "checkpoint" in chain._repr_html_()


def test_a_diff():
    """A row for each region, with its changes."""
    array = dirtytrack.empty(1 << 16, np.uint8)
    array[:] = 0
    with Snapshot(None, array) as snapshot:
        array[5] = 1
        array[500:600] = 1
        shown = snapshot.diff()._repr_html_()
    assert "Diff: 2 changes, 101 B" in shown
    assert shown.count("<tr>") == 2
