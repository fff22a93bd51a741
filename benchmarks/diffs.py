"""Diffs as values, and histories of many states: how large, and how long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np

import dirtytrack
from dirtytrack._zstd import zstd
from dirtytrack.snapshot import Diff, History, Snapshot

from .fixtures import size, touched
from .harness import Figure, Outcome, Scale, Side, compare, measure, row


def _compress(data: bytes) -> bytes:
    library = zstd()
    assert library is not None, "the extra dirtytrack[bench] brings it before Python 3.14"
    (compressed,) = library.compressor(1)([data])
    return bytes(compressed)


def _scaled(nbytes: int) -> tuple[Diff, Diff, bytes, bytes]:
    # What a step of 1 % makes of float32, byte by byte and as a whole, and the array before and after it.
    array = dirtytrack.empty(nbytes // 4, np.float32)
    array[:] = np.random.default_rng(1).random(len(array)) * 1000
    with dirtytrack.Session() as session, Snapshot(session, array) as snapshot:
        before = array.tobytes()
        array *= np.float32(1.01)
        return snapshot.diff(), snapshot.diff(gap=16), before, array.tobytes()


@row("diff-bytes")
def diff_bytes(scale: Scale) -> Iterator[Outcome]:
    """An update of every float of an array, in bytes."""
    exact, whole, before, after = _scaled(scale.gib(1) // 32)
    mixed = np.frombuffer(before, np.uint8) ^ np.frombuffer(after, np.uint8)
    best = Figure.of([len(_compress(mixed.tobytes()))], "bytes")
    for diff, name in ((exact, "gap=0"), (whole, "gap=16")):
        for both in (True, False):
            taken = len(diff.to_bytes(before=both))
            yield Outcome(
                f"to_bytes, {size(len(after))} of float32 times 1.01, {name}{'' if both else ', one-sided'}",
                Figure.of([taken], "bytes"),
                "zstd of old XOR new",
                best,
                Figure.of([taken / best.median], "x"),
                f"{len(diff):,} changes; {taken / len(after):.2f}x the array",
            )


@row("diff-encode")
def diff_encode(scale: Scale) -> Iterator[Outcome]:
    """To bytes and back, beside zstd of as many bytes."""
    exact, _, before, after = _scaled(scale.gib(1) // 32)
    data = exact.to_bytes()
    plain = Side(lambda: _compress(before + after), name="zstd of old and new")
    for title, act in (
        ("to_bytes", lambda: exact.to_bytes()),
        ('to_bytes(compress="none")', lambda: exact.to_bytes(compress="none")),
        ("from_bytes", lambda: Diff.from_bytes(data, max_nbytes=None)),
    ):
        yield compare(f"{title}, {len(exact):,} changes", Side(act), plain, pairs=scale.repeat(5))


@row("diff-merge")
def diff_merge(scale: Scale) -> Iterator[Outcome]:
    """Two diffs as one, beside what it saves: applying both."""
    nbytes = scale.gib(1) // 16
    array, target = touched(nbytes), touched(nbytes)
    with dirtytrack.Session() as session, Snapshot(session, array) as snapshot:
        array[::1000] += 1
        first = snapshot.diff(advance=True)
        array[::2000] += 1
        second = snapshot.diff(advance=True)

    def apply() -> None:
        first.apply(target)
        second.apply(target)

    title = f"merge, {len(first):,} and {len(second):,} changes"
    yield compare(
        title, Side(lambda: first.merge(second)), Side(apply, name="apply of both"), pairs=scale.repeat(20)
    )


@row("history-many-states")
def history_many_states(scale: Scale) -> Iterator[Outcome]:
    """A save, and what it takes, among hundreds of thousands of states."""
    few, many = (10, 1000) if scale.quick else (100, 200_000)
    with ExitStack() as undo:
        arrays = touched(1 << 16), touched(1 << 16)
        session = undo.enter_context(dirtytrack.Session())
        one, other = (undo.enter_context(History(session, array)) for array in arrays)
        for history, array, count in ((one, arrays[0], many), (other, arrays[1], few)):
            for number in range(count):
                array[0] = number & 127
                history.save()

        def save(history: History, array: np.ndarray) -> None:
            array[0] ^= 1
            history.save()

        yield compare(
            f"History.save, 64 KiB, among {many:,} states",
            Side(lambda: save(one, arrays[0])),
            Side(lambda: save(other, arrays[1]), name=f"among {few:,} states"),
            pairs=scale.repeat(500),
            note=f"a state takes {one.nbytes / len(one.states):,.0f} bytes",
        )
        bounded = undo.enter_context(History(session, arrays[0], max_nbytes=one.nbytes // 2))
        for _ in range(many):
            save(bounded, arrays[0])
        yield measure(
            f"History.save, 64 KiB, of {len(bounded.states):,} states one gives way",
            Side(lambda: save(bounded, arrays[0])),
            samples=scale.repeat(500),
        )
