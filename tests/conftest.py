"""Set-up shared by every test: reproducible hypothesis runs, no core files, huge pages on request.

Tests marked ``forked`` run in a child process of their own (pytest-forked): whatever may kill or poison the
process carries that mark. ``subtests`` are lost there, and session fixtures are set up again in every child.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

from _lib import limits
from _lib.support import reserve_hugepages

settings.register_profile("ci", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile(
    "long", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--quick``, for ``make quick``."""
    what = "only tests that need no kernel which can track, start no process, and are not slow"
    parser.addoption("--quick", action="store_true", help=what)


def pytest_configure(config: pytest.Config) -> None:
    """Crashes on purpose leave no core files; a hang ends the process with a traceback on the real stderr."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    limits.show_tracebacks()
    if config.option.quick:
        sys.addaudithook(_skip_who_starts_a_process)


def pytest_collection_finish() -> None:
    """Take the tests out of what ``gc.collect`` looks at: it is called often, and forks copy it."""
    gc.collect()
    gc.freeze()


def _skip_who_starts_a_process(event: str, _arguments: object) -> None:
    if event in ("os.fork", "os.forkpty", "os.posix_spawn", "subprocess.Popen"):
        pytest.skip("not quick: it starts a process")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--quick`` leave out what says of itself that it is not; who starts a process is caught at it."""
    if not config.option.quick:
        return
    config.hook.pytest_deselected(items=[item for item in items if not _seems_quick(item)])
    items[:] = filter(_seems_quick, items)


def _seems_quick(item: pytest.Item) -> bool:
    marks = {mark.name for mark in item.iter_markers()}
    needs_tracking = "tracking_works" in getattr(item, "fixturenames", ()) and "anywhere" not in marks
    return not (needs_tracking or marks & {"forked", "slow"})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """Bound every test: a forked one that hangs is reported as crashed, another one ends the run."""
    limits.begin()
    try:
        return (yield)
    finally:
        limits.end()


@pytest.fixture
def hugepages() -> Iterator[Callable[[int], int]]:
    """``hugepages(count)`` keeps *count* huge pages free for this test and returns the bytes of one."""
    with ExitStack() as reservations:
        yield lambda count: reservations.enter_context(reserve_hugepages(count))


@pytest.fixture
def torn() -> Iterator[None]:
    """Threads are switched as often as can be; without the GIL they need no such help."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
