"""Scans that stop the process's other threads, beside scans that interrupt them, and what a stop costs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .fixtures import PAGE, VEC, Tracked, busy_thread, size
from .harness import Budget, Outcome, Scale, Side, compare, row


@row("company-stopped", Budget(0.3))
def company_stopped(scale: Scale) -> Iterator[Outcome]:
    """A scan that stops a native thread, which it had to interrupt for every piece that it arms otherwise."""
    for fraction in (0.01, 0.10, 0.001):
        with Tracked(scale.gib(1), stop_threads=True) as memory, busy_thread():
            dirty = functools.partial(memory.dirty, fraction)
            yield compare(
                f"collect, {size(memory.region.nbytes)}, {fraction:.1%} written, stops a native thread",
                Side(memory.collect, dirty),
                Side(memory.scan, dirty, f"bare ioctl beside it, vec_len {VEC}"),
                pairs=scale.repeat(100),
            )


@row("stop-latency")
def stop_latency(scale: Scale) -> Iterator[Outcome]:
    """What a stop itself costs: a collect of one page that stops threads, beside one that does not."""
    with busy_thread():
        yield _stop(scale, "a native thread that computes")
    for count in (1, 16, 64):
        with _sleeping(count):
            yield _stop(scale, f"{count} thread{'s' * (count > 1)} that wait{'s' * (count == 1)}")


def _stop(scale: Scale, company: str) -> Outcome:
    with Tracked(PAGE, stop_threads=True) as stopping, Tracked(PAGE) as plain:
        return compare(
            f"collect of one page, stops {company}",
            Side(stopping.session.collect),
            Side(plain.session.collect, name="not stopping"),
            pairs=scale.repeat(500),
        )


@contextmanager
def _sleeping(count: int) -> Iterator[None]:
    done = threading.Event()
    threads = [threading.Thread(target=done.wait) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
