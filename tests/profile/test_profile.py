"""Profiles: what is charged to whom, against writers of which it is known what they write."""

from __future__ import annotations

import gc
import random
import sys
import threading
from collections import Counter, defaultdict
from queue import SimpleQueue

import numpy as np
import pytest

import dirtytrack
from _lib.interrupts import at_every_point, interrupted_at, traced
from _lib.profile import writers
from _lib.profile.writers import store
from _lib.support import PAGE_SIZE, in_child
from _lib.syscalls import map_anonymous, munmap
from dirtytrack import ClosedError, ForkedError, RegionLostError, Session
from dirtytrack.profile import Profile, Report
from dirtytrack.profile import profile as module
from dirtytrack.profile._ticker import Ticker

_monitoring = pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="sys.monitoring is of Python 3.12")


@pytest.fixture(autouse=True)
def memory(session: Session, monkeypatch: pytest.MonkeyPatch) -> dirtytrack.Region:
    """A hundred pages that the writers write to, tracked as "m"."""
    memory = dirtytrack.alloc(100 * PAGE_SIZE)
    memory[:] = bytes(len(memory))
    monkeypatch.setattr(writers, "memory", memory)
    return session.track(memory, name="m")


def found(report: Report) -> dict[str, tuple[int, int]]:
    """By phase: page-writes, and different pages."""
    return {phase.title: (phase.writes, phase.distinct) for phase in report.recording.phases if phase.writes}


def test_each_phase_has_what_was_written_in_it(session: Session) -> None:
    """And what was written outside of all has a row of its own; the same page counts in both."""
    store(99)
    with Profile(session) as profile:
        store(1)
        for _ in range(3):
            with profile.phase("a"):
                store(2, 3)
            with profile.phase("b"):
                store(3)
                store(3)
        store(4, 5)
    assert found(profile.report()) == {"a": (6, 2), "b": (3, 1), "(outside)": (3, 3)}


def test_random_writers_against_bytes(session: Session) -> None:
    """What each of some functions changed, by comparing all bytes before and after it."""
    draw = random.Random(3)
    backing = dirtytrack.alloc(40 * PAGE_SIZE)
    array = np.frombuffer(backing, np.uint8, 37 * PAGE_SIZE + 123, 77)  # it begins and ends within pages
    region = session.track(array, name="array")
    writes: Counter[str] = Counter()
    pages: dict[str, set[int]] = defaultdict(set)
    with Profile(session) as profile:
        for _ in range(150):
            name = draw.choice("abc")
            before = array.copy()
            with profile.phase(name):
                for _ in range(draw.randrange(4)):
                    start = draw.randrange(array.size)
                    array[start : start + draw.randrange(1, 3 * PAGE_SIZE)] += 1
            changed = np.flatnonzero(array != before)
            touched = {int(byte + region.geometry.offset) // PAGE_SIZE for byte in changed}
            writes[name] += len(touched)
            pages[name] |= touched
    tallies = {
        phase.name: next(t for t in phase.tallies if t.area == 0)
        for phase in profile.report().recording.phases
        if phase.tallies and phase.name
    }
    assert profile.report().recording.areas[0].name == "array"
    assert {name: tally.writes for name, tally in tallies.items()} == dict(writes)
    assert {name: tally.distinct for name, tally in tallies.items()} == {
        name: len(one) for name, one in pages.items()
    }


def test_phases_within_phases(session: Session) -> None:
    """What is written in the inner one is not the outer one's; the same name directly within is one phase."""
    with Profile(session) as profile, profile.phase("step"):
        store(1)
        with profile.phase("inner"):
            store(2)
            with profile.phase("inner"):
                store(3)
        store(4, 5)
    assert found(profile.report()) == {"step": (3, 3), "step/inner": (2, 2)}


def test_a_block_can_be_entered_again(session: Session) -> None:
    """One after the other, and within itself."""
    with Profile(session) as profile:
        block = profile.phase("a")
        with block, block:
            store(1)
        with block:
            store(1)
        store(2)
    assert found(profile.report()) == {"a": (2, 1), "(outside)": (1, 1)}


def test_an_exception_ends_a_phase(session: Session) -> None:
    """It passes, and what was written before it is the phase's."""
    with Profile(session) as profile:
        with pytest.raises(RuntimeError, match="on purpose"), profile.phase("a"):
            writers.fails()
        store(1)
    assert found(profile.report()) == {"a": (1, 1), "(outside)": (1, 1)}


def test_phases_of_several_threads(session: Session) -> None:
    """While two are open, what is written is charged to both together: page tables know no threads."""
    asked: SimpleQueue[int | None] = SimpleQueue()
    done: SimpleQueue[int] = SimpleQueue()

    def other() -> None:
        with profile.phase("other"):
            done.put(0)
            while (page := asked.get()) is not None:
                store(page)
                done.put(page)
        done.put(-1)

    with Profile(session) as profile:
        thread = threading.Thread(target=other)
        thread.start()
        done.get()
        asked.put(1)
        done.get()
        with profile.phase("mine"):
            store(2)
            asked.put(3)
            done.get()
        store(4)  # by a thread without a phase
        asked.put(None)
        done.get()
        thread.join()
        store(5)
    assert found(profile.report()) == {"other": (2, 2), "mine + other": (2, 2), "(outside)": (1, 1)}


def test_many_threads_lose_nothing(session: Session) -> None:
    """Each writes pages of its own in phases of its own; the sums are right, and no phase stays open."""
    sessions = 8

    def run(number: int) -> None:
        for turn in range(50):
            with profile.phase(f"t{number}"):
                store(number * 10 + turn % 10)

    with Profile(session) as profile:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(sessions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert "in no phase" in repr(profile)
    recording = profile.report().recording
    assert recording.areas[0].distinct == 80
    assert all(set(name.split(" + ")) <= {f"t{n}" for n in range(8)} for name in found(profile.report()))


_FUNCTIONS = ["first", "second", "fails", "countdown", "Model.step", "Model.reset", "Model.build"]
_GENERATORS = ["steps", "chunks"]


def named(*functions: str) -> list[str]:
    """Names as a profile takes them."""
    return [f"{writers.__name__}:{name}" for name in functions]


def test_functions_as_phases(session: Session) -> None:
    """By their names, nested as they call each other; one that raises, and one that calls itself."""
    with Profile(session, functions=named(*_FUNCTIONS)) as profile:
        writers.first()
        writers.second()
        with pytest.raises(RuntimeError):
            writers.fails()
        writers.countdown(3)
        writers.Model().step()
        writers.Model.reset()
        assert writers.Model.build() is writers.Model
        store(90)
    module = writers.__name__
    assert found(profile.report()) == {
        f"{module}:first": (4, 4),
        f"{module}:second": (3, 2),
        f"{module}:second/{module}:first": (4, 4),
        f"{module}:fails": (1, 1),
        f"{module}:countdown": (4, 4),
        f"{module}:Model.step": (1, 1),
        f"{module}:Model.reset": (1, 1),
        f"{module}:Model.build": (1, 1),
        "(outside)": (1, 1),
    }
    before = profile.report().recording.collects
    writers.first()  # nobody watches any more
    assert profile.report().recording.collects == before
    assert not hasattr(writers.first, "__wrapped__")
    assert isinstance(vars(writers.Model)["reset"], staticmethod)


@_monitoring
def test_generators_have_what_they_write_while_they_run(session: Session) -> None:
    """Not what is written between their steps; also when something is thrown into them."""
    with Profile(session, functions=named(*_GENERATORS)) as profile:
        generator = writers.steps()
        assert next(generator) == 1
        store(90)
        assert next(generator) == 2
        assert generator.throw(KeyError()) == 3  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="out of it"):
            generator.throw(ValueError("out of it"))  # type: ignore[attr-defined]
        store(91)
        asynchronous = writers.chunks()
        with pytest.raises(StopIteration):
            asynchronous.__anext__().send(None)  # type: ignore[attr-defined]
        store(92)
        with pytest.raises(StopAsyncIteration):
            asynchronous.__anext__().send(None)  # type: ignore[attr-defined]
    module = writers.__name__
    assert found(profile.report()) == {
        f"{module}:steps": (3, 3),
        f"{module}:chunks": (2, 2),
        "(outside)": (3, 3),
    }


@_monitoring
def test_functions_imported_before_are_watched(session: Session) -> None:
    """And two profiles at a time do not disturb each other."""
    first = writers.first
    with Profile(session, functions=named("first")) as one, Profile(session, functions=named("first")) as two:
        first()
    assert found(one.report()) == found(two.report()) == {f"{writers.__name__}:first": (4, 4)}


@pytest.mark.skipif(hasattr(sys, "monitoring"), reason="they are watched from Python 3.12 on")
def test_a_wrapper_says_what_it_misses(session: Session) -> None:
    """In a note of the report; and generators are refused before anything is wrapped."""
    with Profile(session, functions=named("first")) as profile:
        pass
    assert "imported one before" in profile.report().recording.notes[0]
    with pytest.raises(ValueError, match="steps' is a generator or a coroutine"):
        Profile(session, functions=named("first", "steps"))
    assert not hasattr(writers.first, "__wrapped__")
    assert [cursor.name for cursor in session.cursors] == ["default"]


@pytest.mark.parametrize(
    ("functions", "error", "message"),
    [
        ("m:f", TypeError, "functions are a list of str, not the one"),
        ([3], TypeError, "functions are a list of str, and 3 is none"),
        (["nothing"], ValueError, 'it is "module:function"'),
        (["m:f g"], ValueError, 'it is "module:function"'),
        (["_lib.profile.writers:nothing"], ValueError, "there is no 'nothing' in module"),
        (["_lib.profile.writers:Model.nothing"], ValueError, "there is no 'Model.nothing'"),
        (["_lib.profile.writers:Model"], ValueError, "no function written in Python"),
        (["math:sqrt"], ValueError, "no function written in Python"),
        (["no_such_module:f"], ImportError, "no_such_module"),
    ],
)
def test_functions_that_can_not_be_watched(
    session: Session, functions: list[str], error: type[Exception], message: str
) -> None:
    """Are refused with what is wrong, and no cursor stays open."""
    with pytest.raises(error, match=message):
        Profile(session, functions=functions)
    assert len(session.cursors) == 1


@pytest.mark.parametrize("name", ["", "a/b", "a + b", "x" * 201])
def test_names_that_are_none(session: Session, name: str) -> None:
    """Those that would be taken for nested or joined ones."""
    with Profile(session) as profile:
        with pytest.raises(ValueError, match="is no name for a phase"):
            profile.phase(name)
        with pytest.raises(TypeError, match="a phase's name is a str"):
            profile.phase(3)  # type: ignore[arg-type]


def test_arguments_are_checked(session: Session) -> None:
    """Before anything is opened."""
    for make in (
        lambda: Profile(session, every=0),
        lambda: Profile(session, intervals=[-1.0]),
        lambda: Profile(session, every=float("nan")),
    ):
        with pytest.raises(ValueError, match="seconds"):
            make()
    with pytest.raises(TypeError, match="number of seconds"):
        Profile(session, every="1")  # type: ignore[arg-type]
    assert len(session.cursors) == 1


def test_regions_may_come_and_go(session: Session, memory: dirtytrack.Region) -> None:
    """A later one counts from when it is tracked; of one that is untracked what was found stays."""
    with Profile(session) as profile:
        with profile.phase("a"):
            store(1)
        session.untrack(memory)
        later = dirtytrack.alloc(4 * PAGE_SIZE)
        with profile.phase("a"):
            session.track(later, name="later")
            later[0] = 1
    areas = {area.name: area.writes for area in profile.report().recording.areas}
    assert areas == {"m": 1, "later": 1}


def test_rows_and_elements_are_named(session: Session) -> None:
    """By the shape of the array; memory in another order, and plain bytes, by bytes."""
    grid = dirtytrack.empty((100, PAGE_SIZE // 8), np.float64)
    line = dirtytrack.empty(PAGE_SIZE, np.int16)
    turned = dirtytrack.empty((100, PAGE_SIZE // 8), np.float64).T
    for array, name in ((grid, "grid"), (line, "line"), (turned, "turned")):
        array[:] = 0
        session.track(array, name=name)
    with Profile(session) as profile:
        grid[7:9] = 1
        line[PAGE_SIZE // 2 + 1] = 1
        turned.T[3] = 1
        store(0)
    places = {
        area.name: area.place(start, stop) for area, start, stop, _ in profile.report().recording.hottest(9)
    }
    assert places == {
        "grid": "rows [7, 9)",
        "line": f"elements [{PAGE_SIZE // 2:,}, {PAGE_SIZE:,})",
        "turned": f"bytes [{3 * PAGE_SIZE:,}, {4 * PAGE_SIZE:,})",
        "m": f"bytes [0, {PAGE_SIZE:,})",
    }


def test_other_consumers_are_not_disturbed(session: Session, memory: dirtytrack.Region) -> None:
    """Nor do they take anything away."""
    with Profile(session) as profile:
        with profile.phase("a"):
            store(1)
            assert session.collect()[memory] == {1}
            store(2)
        assert session.collect()[memory] == {2}
    assert found(profile.report()) == {"a": (2, 2)}


def test_a_working_set_is_what_a_cursor_would_have(
    session: Session, memory: dirtytrack.Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each interval: cursors that are collected whenever a window ends, by a clock of the test's own."""
    now = 100.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    sizes: dict[float, list[int]] = {0.5: [], 2.0: [], 7.0: []}
    with Profile(session, intervals=sizes) as profile:
        cursors = {interval: session.cursor(str(interval)) for interval in sizes}
        for turn in range(100):
            store(turn % 7, turn % 31, 40 + turn % 3)
            now += 0.3 + turn % 3 * 0.2
            for one in profile.report().recording.working_sets:
                if one.windows > len(sizes[one.interval]):
                    sizes[one.interval].append(cursors[one.interval].collect()[memory].nbytes)
    for one in profile.report().recording.working_sets:
        assert (one.windows, one.nbytes) == (len(sizes[one.interval]), sum(sizes[one.interval]))
        assert one.peak == max(sizes[one.interval])


def test_a_thread_collects_as_well(session: Session) -> None:
    """Nothing is charged to anybody else by it, and its thread ends with the profile."""
    with Profile(session, every=1e-3) as profile:
        with profile.phase("a"):
            store(1)
            while profile.report().recording.collects < 20:
                store(1)
        store(2)
    assert set(found(profile.report())) == {"a", "(outside)"}
    assert found(profile.report())["(outside)"] == (1, 1)
    assert not [thread for thread in threading.enumerate() if thread.name == "dirtytrack profile"]


@traced
def test_interrupts_of_a_thread_that_begins_and_ends(session: Session) -> None:
    """Wherever Ctrl-C strikes, it is what is raised, and the thread ends with the next stop."""

    def act(count: int) -> None:
        ticker = Ticker(lambda: None)
        try:
            with interrupted_at(count, among=_of_tickers):
                ticker.start(60)
                ticker.stop()
        finally:
            ticker.stop()

    def check() -> None:
        assert not [thread for thread in threading.enumerate() if thread.name == "dirtytrack profile"]

    at_every_point(act, check)


def test_an_adaptive_session_says_what_it_assumed() -> None:
    """Page-writes without proof are counted apart, and a note tells of them."""
    array = dirtytrack.alloc(64 * PAGE_SIZE)
    with dirtytrack.Session(adaptive=True) as session:
        session.track(array, name="hot")
        with Profile(session) as profile:
            for turn in range(20):
                with profile.phase("a"):
                    array[:] = bytes([turn]) * len(array)
                array[:] = bytes([turn + 100]) * len(array)
        recording = profile.report().recording
    assert 0 < recording.assumed < recording.writes
    assert "adaptive" in recording.notes[0]


def test_a_lost_region_is_raised_at_the_border(session: Session) -> None:
    """And the phase is over."""
    address = map_anonymous(4 * PAGE_SIZE)
    lost = session.track((address, 4 * PAGE_SIZE), name="gone")
    with Profile(session) as profile:
        with pytest.raises(RegionLostError, match="gone"), profile.phase("a"):
            munmap(address, 4 * PAGE_SIZE)
        assert "in no phase" in repr(profile)
        session.untrack(lost)


def test_closing(session: Session) -> None:
    """It is idempotent; what was found stays; phases of a closed one do nothing."""
    with Profile(session) as profile:
        with profile.phase("a"):
            store(1)
            profile.close()
            store(2)
        profile.close()
        with profile.phase("b"):
            store(3)
    assert found(profile.report()) == {"a": (1, 1)}
    assert profile.closed
    assert [cursor.name for cursor in session.cursors] == ["default"]
    with pytest.raises(ClosedError, match="is closed: begin another one"), profile:
        pass


def test_one_that_is_never_closed_warns(session: Session) -> None:
    """And closes itself."""
    profile = Profile(session)
    with pytest.warns(ResourceWarning, match="was never closed"):
        del profile
        gc.collect()
    assert len(session.cursors) == 1


def test_without_a_session_it_is_the_default_one() -> None:
    """As everywhere."""
    memory = dirtytrack.alloc(PAGE_SIZE)
    dirtytrack.default_session().track(memory, name="here")
    with Profile() as profile, profile.phase("a"):
        memory[0] = 1
    assert found(profile.report()) == {"a": (1, 1)}


def test_a_forked_child_does_nothing(session: Session) -> None:
    """Its phases pass by, its report is refused; the parent's numbers are its own."""
    with Profile(session, functions=named("first")) as profile:

        def child() -> str:
            with profile.phase("child"):
                store(50)
            writers.first()
            with pytest.raises(ForkedError, match="another process"):
                profile.report()
            profile.close()
            return "went on"

        with profile.phase("parent"):
            store(1)
            assert in_child(child).check() == "went on"
    assert found(profile.report()) == {"parent": (1, 1)}


@traced
def test_interrupts_lose_nothing(session: Session) -> None:
    """Wherever Ctrl-C strikes at a border, all that was written is charged, and no phase stays open."""
    profile = Profile(session)
    with profile:

        def act(count: int) -> None:
            with interrupted_at(count, among=_of_profiles), profile.phase("outer"), profile.phase("a"):
                store(7)

        expected = 0

        def check() -> None:
            nonlocal expected
            with profile.phase("after"):
                pass
            if profile.report().recording.areas:
                expected = profile.report().recording.areas[0].writes

        at_every_point(act, check)
        assert expected > 5


def _of_tickers(frame: object) -> bool:
    return frame.f_code.co_filename.endswith(  # type: ignore[attr-defined,no-any-return]
        ("_ticker.py", "background.py", "threading.py")
    )


def _of_profiles(frame: object) -> bool:
    return "/profile/profile.py" in frame.f_code.co_filename  # type: ignore[attr-defined]


def test_what_notebooks_show_where_there_can_be_no_report(session: Session) -> None:
    """In a forked child, and once memory is lost: what the profile is."""
    address = map_anonymous(PAGE_SIZE)
    region = session.track((address, PAGE_SIZE), name="lost")
    with Profile(session) as profile:
        in_child(lambda: check(profile)).check()
        munmap(address, PAGE_SIZE)
        check(profile)
        session.untrack(region)


def check(profile: Profile) -> None:
    """Its page is its repr."""
    assert profile._repr_html_().startswith("&lt;dirtytrack.profile.Profile")
