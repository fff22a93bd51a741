"""Sessions: tracking and untracking, shared pages, the default session, closing, leaks, and size."""

from __future__ import annotations

import copy
import errno
import gc
import itertools
import os
import pickle
import random
import resource
from fractions import Fraction

import numpy as np
import pytest

import dirtytrack
from _lib.raw import Raw, is_free, open_descriptors
from _lib.support import PAGE_SIZE, Memory, in_child, optional, resident_bytes
from dirtytrack import ClosedError, KernelError, Session


def test_the_first_epoch_holds_what_was_stored_since(session: Session) -> None:
    """Contents from before track are not written; stores afterwards are, to the page; once."""
    with Memory(16) as memory:
        memory.fill(7)
        region = session.track(memory.map, name="heap")
        assert session.collect()[region] == region.page_set([])
        memory.touch(3)
        memory.write(9)
        assert set(session.collect()[region]) == {3, 9}
        assert session.collect().pages == 0
        session.untrack(region)


def test_reading_is_no_write(session: Session) -> None:
    """Reading populated, unpopulated and freshly written memory reports nothing."""
    with Memory(16) as memory:
        memory.write(1)
        region = session.track(memory.map)
        memory.sync()
        assert session.collect().pages == 0
        memory.write(2)
        session.reset()
        assert memory.changed() == {2}
        assert session.collect().pages == 0
        session.untrack(region)


def test_regions_are_listed_in_order(session: Session) -> None:
    """``regions`` lists what is tracked, in the order of tracking; an epoch has the same."""
    with Raw(16) as memory:
        regions = [session.track(memory.piece(page, page + 1)) for page in (5, 1, 3)]
        assert session.regions == tuple(regions)
        assert list(session.collect()) == regions
        session.untrack(regions[1])
        assert session.regions == (regions[0], regions[2])
        assert list(session.collect()) == [regions[0], regions[2]]


def test_an_empty_session_collects_nothing(session: Session) -> None:
    """No region: an epoch of nothing, numbered all the same."""
    epoch = session.collect()
    assert (len(epoch), epoch.pages, epoch.nbytes, epoch.number) == (0, 0, 0, 1)


@pytest.mark.registration
def test_untrack_unregisters_at_once(session: Session) -> None:
    """The pages are free for others as soon as untrack returns, and not reported any more."""
    with Raw(8) as memory:
        region = session.track(memory.pair)
        assert not is_free(memory.start, memory.stop)
        session.untrack(region)
        assert is_free(memory.start, memory.stop)
        assert not region.tracked
        for call in (lambda: session.collect(region), lambda: session.untrack(region), lambda: region.view):
            with pytest.raises(ClosedError, match="not tracked"):
                call()


@pytest.mark.registration
def test_untrack_keeps_what_others_hold(session: Session) -> None:
    """Only the pages that no other region holds are released; the others' writes stay theirs."""
    with Raw(12) as memory:
        left, right = session.track(memory.piece(0, 8)), session.track(memory.piece(4, 12))
        memory.write(5, 9)
        session.untrack(left)
        assert is_free(*memory.at(0, 4))
        assert not is_free(*memory.at(4))
        memory.write(1, 6)
        assert set(session.collect()[right]) == {1, 2, 5}


def test_nested_regions_report_each_for_itself(session: Session) -> None:
    """A region within another, and the same memory twice: one write, reported to each, in its own count."""
    with Raw(16) as memory:
        outer, inner = session.track(memory.pair), session.track(memory.piece(4, 8))
        again = session.track(memory.pair)
        memory.write(2, 5, 12)
        epoch = session.collect()
        assert {region: set(pages) for region, pages in epoch.items()} == {
            outer: {2, 5, 12},
            inner: {1},
            again: {2, 5, 12},
        }
        assert session.collect().pages == 0


def test_a_new_neighbour_starts_clean_and_takes_nothing(session: Session) -> None:
    """Tracking memory on a shared page: nothing from before for the new one, nothing lost for the old one."""
    with Raw(4) as memory:
        half = PAGE_SIZE // 2
        old = session.track((memory.start, PAGE_SIZE + half))
        memory.write(0, 1)
        new = session.track((memory.start + PAGE_SIZE + half, PAGE_SIZE))
        epoch = session.collect()
        assert set(epoch[old]) == {0, 1}
        assert set(epoch[new]) == set()
        memory.write(1)
        epoch = session.collect()
        assert (set(epoch[old]), set(epoch[new])) == ({1}, {0})


def test_unaligned_buffers_share_pages_exactly(session: Session) -> None:
    """Objects side by side on the same pages, tracked and untracked at random, against a model in bytes."""
    rng = random.Random(2)
    with Raw(24) as memory:
        cuts = [0, *sorted(rng.sample(range(1, 24 * PAGE_SIZE), 19)), 24 * PAGE_SIZE]
        pieces = list(itertools.pairwise(cuts))
        tracked: dict[int, dirtytrack.Region] = {}
        written: dict[int, set[int]] = {}
        for _ in range(400):
            which = rng.randrange(len(pieces))
            start, stop = pieces[which]
            action = rng.random()
            if action < 0.25 and which not in tracked:
                tracked[which] = session.track((memory.start + start, stop - start))
                written[which] = set()
            elif action < 0.4 and which in tracked:
                session.untrack(tracked.pop(which))
                del written[which]
            elif action < 0.8:
                page = rng.randrange(24)
                memory.write(page)
                for other, region in tracked.items():
                    first = pieces[other][0] // PAGE_SIZE
                    if first <= page < first + region.geometry.page_count:
                        written[other].add(page - first)
            else:
                epoch = session.collect()
                assert {i: set(epoch[region]) for i, region in tracked.items()} == written
                written = {i: set() for i in tracked}


def test_slices_never_leave_the_region(session: Session) -> None:
    """What is reported of an unaligned region is clipped to its own bytes."""
    with Raw(4) as memory:
        region = session.track((memory.start + 100, 2 * PAGE_SIZE))
        memory.write(0, 2)
        pages = session.collect()[region]
        assert pages.slices() == [slice(0, PAGE_SIZE - 100), slice(2 * PAGE_SIZE - 100, 2 * PAGE_SIZE)]
        assert pages.nbytes == PAGE_SIZE
        assert [len(region.view[piece]) for piece in pages.slices()] == [PAGE_SIZE - 100, 100]


@pytest.mark.registration
@pytest.mark.slow
def test_ten_thousand_regions(session: Session) -> None:
    """Each is tracked, reported and released for itself."""
    with Raw(10_000) as memory:
        regions = [session.track(memory.piece(page, page + 1)) for page in range(10_000)]
        written = set(range(0, 10_000, 7))
        memory.write(*written)
        epoch = session.collect()
        assert {page for page, region in enumerate(regions) if epoch[region]} == written
        assert epoch.pages == len(written)
        for region in regions[::2]:
            session.untrack(region)
        memory.write(*range(10_000))
        assert session.collect().pages == 5000
        session.close()
        assert is_free(memory.start, memory.stop)


def test_a_hundred_thousand_runs() -> None:
    """Every other page of many, for two cursors: all of them, each once, and then none."""
    pages = 1 << 18
    optional(os.sysconf("SC_PHYS_PAGES") > pages * 3 // 4, f"needs {pages // 2} pages of memory")
    with Session() as session:
        array = dirtytrack.empty(pages * PAGE_SIZE, np.uint8, huge=False)
        region = session.track(array)
        second = session.cursor("second")
        array[:: 2 * PAGE_SIZE] = 1
        expected = np.arange(0, pages, 2, dtype=np.uint64)
        expected = np.stack([expected, expected + 1], axis=1)
        for consumer in (session, second):
            found = consumer.collect()[region]
            assert len(found) == pages // 2 > 100_000
            assert np.array_equal(np.asarray(found.runs), expected)
            assert consumer.collect().pages == 0
        array[: 600 * 2 * PAGE_SIZE : 2 * PAGE_SIZE] = 2
        assert np.array_equal(np.asarray(session.peek()[region].runs), expected[:600])
        assert np.array_equal(np.asarray(session.collect()[region].runs), expected[:600])
        assert np.array_equal(np.asarray(second.collect()[region].runs), expected[:600])


@pytest.mark.parametrize("runs", [255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 5000])
def test_no_run_is_lost_or_doubled_at_the_size_of_a_buffer(session: Session, runs: int) -> None:
    """Around each size at which a kernel call fills up, a peek and a collect give every run once."""
    with Raw(2 * runs) as memory:
        region = session.track(memory.pair)
        wanted = list(range(1, 2 * runs, 2))
        memory.write(*wanted)
        for verb in (session.peek, session.collect):
            pages = verb()[region]
            assert list(pages) == wanted
            assert len(pages.runs) == runs
        assert session.collect().pages == 0


def test_closing_releases_everything_and_is_idempotent() -> None:
    """After close nothing is registered, every call says so, and another close does nothing."""
    with Raw(8) as memory:
        session = Session()
        region = session.track(memory.pair)
        cursor = session.cursor("second")
        memory.write(1)
        epoch = session.collect()
        session.close()
        session.close()
        assert session.closed
        assert session.regions == ()
        assert not region.tracked
        assert is_free(memory.start, memory.stop)
        assert set(epoch[region]) == {1}
        epoch.abort()
        cursor.close()
        calls = (
            lambda: session.collect(),
            lambda: session.peek(region),
            lambda: session.reset(),
            lambda: session.track(memory.pair),
            lambda: session.untrack(region),
            lambda: session.mark(region),
            lambda: session.cursor("third"),
            lambda: cursor.collect(),
        )
        for call in calls:
            with pytest.raises(ClosedError, match="Session"):
                call()
        assert "closed" in repr(session)


def test_a_session_is_a_context_manager() -> None:
    """Leaving the block closes it, also with an exception."""
    with pytest.raises(KeyError), Session() as session:
        raise KeyError
    assert session.closed


def test_a_leaked_session_warns_and_lets_go() -> None:
    """A session that is collected unclosed gives a ResourceWarning, and unregisters."""
    with Raw(8) as memory:
        session = Session()
        session.track(memory.pair)
        before = open_descriptors()
        with pytest.warns(ResourceWarning, match="never closed"):
            del session
            gc.collect()
        assert open_descriptors() == before - 2
        assert is_free(memory.start, memory.stop)


@pytest.mark.slow
def test_sessions_leave_no_descriptors_and_no_memory() -> None:
    """Two thousand sessions, the default one among them: descriptors and memory stay flat.

    A leak shows in every round of them; the interpreter's own allocator grows by a mebibyte now and then.
    """

    def churn(count: int) -> None:
        with Raw(4) as memory:
            for i in range(count):
                session = dirtytrack.default_session() if i % 2 else Session()
                with session:
                    session.track(memory.pair)
                    session.cursor("second")
                    memory.write(1)
                    assert session.collect().pages == 1

    def child() -> tuple[int, int]:
        churn(200)
        gc.collect()
        descriptors = open_descriptors()
        growth = []
        for _ in range(4):
            before = resident_bytes()
            churn(500)
            gc.collect()
            growth.append(resident_bytes() - before)
        return open_descriptors() - descriptors, min(growth)

    descriptors, growth = in_child(child).check()
    assert descriptors == 0
    assert growth < 100 << 10


@pytest.mark.slow
def test_collecting_leaves_no_memory() -> None:
    """A hundred thousand collects, peeks and aborts among them: memory stays flat."""

    def child() -> int:
        def churn(session: Session, memory: Raw, count: int) -> None:
            for i in range(count):
                memory.write(i % 64)
                epoch = session.collect()
                if i % 5 == 0:
                    epoch.abort()
                elif i % 5 == 1:
                    session.peek()

        with Session() as session, Raw(64) as memory:
            session.track(memory.pair)
            churn(session, memory, 5000)
            before = resident_bytes()
            churn(session, memory, 100_000)
            return resident_bytes() - before

    assert in_child(child).check() < 1 << 20


def test_the_default_session_is_one() -> None:
    """Everybody gets the same one; closed, a new one takes its place."""

    def child() -> None:
        first = dirtytrack.default_session()
        assert dirtytrack.default_session() is first
        with Raw(8) as memory:
            one, other = first.track(memory.pair), dirtytrack.default_session().track(memory.piece(4, 8))
            memory.write(5)
            epoch = first.collect()
            assert (set(epoch[one]), set(epoch[other])) == ({5}, {1})
            first.close()
            second = dirtytrack.default_session()
            assert second is not first
            assert not second.closed
            second.track(memory.pair)

    in_child(child).check()


def test_an_unknown_backend_is_refused() -> None:
    """The message names those that exist."""
    for thing in ("magic", "", ["auto"], None, 1):
        with pytest.raises(ValueError, match="wp-async"):
            Session(backend=thing)
    with Session(backend="wp-async") as session:
        assert session.backend == "wp-async"


def test_out_of_descriptors_says_so() -> None:
    """No descriptor left for either half: an error with errno, and nothing stays open."""

    def child() -> list[int | None]:
        dirtytrack.support()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        files = fill_descriptors()
        codes = []
        for _ in range(2):
            with pytest.raises(KernelError, match="RLIMIT_NOFILE") as caught:
                Session()
            codes.append(caught.value.errno)
            os.close(files.pop())
        Session().close()
        assert len(fill_descriptors()) == 2
        return codes

    assert in_child(child).check() == [errno.EMFILE, errno.EMFILE]


def fill_descriptors() -> list[int]:
    """Open files until there is no descriptor left."""
    files = []
    while True:
        try:
            files.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return files


@pytest.mark.parametrize("thing", [None, "a", 3, (1, 2)])
def test_what_is_no_region_is_refused(session: Session, thing: object) -> None:
    """Wherever a region is expected, anything else is a TypeError."""
    calls = (session.collect, session.peek, session.reset, session.untrack, session.mark)
    for call in calls:
        with pytest.raises(TypeError, match=r"[Rr]egion"):
            call(thing)  # type: ignore[operator]


def test_foreign_regions_are_refused(session: Session) -> None:
    """A region of another session is a ValueError everywhere, whole or narrowed."""
    with Session(backend=session.backend) as other, Raw(2) as memory:
        region = other.track(memory.pair)
        for what in (region, region[:1]):
            for call in (session.collect, session.peek, session.reset, session.mark):
                with pytest.raises(ValueError, match="another session"):
                    call(what)
        with pytest.raises(ValueError, match="another session"):
            session.untrack(region)
        memory.write(1)
        assert set(other.collect()[region]) == {1}


@pytest.mark.registration
def test_a_name_is_a_string(session: Session) -> None:
    """Refused before anything is registered."""
    with Raw(1) as memory:
        with pytest.raises(TypeError, match="name"):
            session.track(memory.pair, name=3)  # type: ignore[arg-type]
        assert is_free(memory.start, memory.stop)


def test_regions_are_found_by_name(session: Session) -> None:
    """None or two of a name are a KeyError that says what there is."""
    with pytest.raises(KeyError, match="no region is called 'a': none has a name"):
        session["a"]
    with Raw(8) as memory:
        first, second, nameless = (
            session.track(memory.piece(at, at + 1), name=name) for at, name in enumerate(["a", "b", None])
        )
        assert (session["a"], session["b"]) == (first, second)
        for missing in ("c", "", str(nameless.address)):
            with pytest.raises(KeyError, match="there are 'a', 'b'"):
                session[missing]
        other = session.track(memory.piece(5, 6), name="a")
        with pytest.raises(KeyError, match=f"2 regions .* {first.address:#x} and {other.address:#x}: .*own"):
            session["a"]
        assert list(session) == [first, second, nameless, other]
        assert "a" in session
        assert second in session
        session.untrack(first)
        assert session["a"] is other
        assert first not in session
        assert "c" not in session
        for thing in (0, None, first):
            with pytest.raises(TypeError, match="name"):
                session[thing]  # type: ignore[index]


def test_what_it_was_opened_with(session: Session) -> None:
    """Its cursors, too: also one whose owner has lost it."""
    assert session.double_check == 0
    session.cursor("lost")
    assert [cursor.name for cursor in session.cursors] == ["default", "lost"]
    session.cursors[1].close()
    assert [cursor.name for cursor in session.cursors] == ["default"]
    session.close()
    assert session.cursors == ()
    with Session(backend=session.backend, double_check=Fraction(1, 4)) as checking:  # type: ignore[arg-type]
        assert checking.double_check == (0.25 if session.backend == "wp-async" else 0)


@pytest.mark.parametrize("thing", ["yes", "no", 1, 0.0, None, [True]])
def test_booleans_are_booleans(session: Session, thing: object) -> None:
    """Text that means no is not taken for yes."""
    with pytest.raises(TypeError, match="adaptive is True or False, not"):
        Session(backend=session.backend, adaptive=thing)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sparse is True or False, not"):
        session.track(bytearray(10), sparse=thing)  # type: ignore[arg-type]
    assert session.regions == ()


@pytest.mark.registration
def test_sparse_and_dense_do_not_mix(session: Session) -> None:
    """On a shared page that is a ValueError, which registers nothing; side by side they work."""
    with Raw(12) as memory:
        dense = session.track(memory.piece(0, 4))
        with pytest.raises(ValueError, match="sparse and dense"):
            session.track(memory.piece(3, 8), sparse=True)
        assert is_free(*memory.at(4, 8))
        sparse = session.track(memory.piece(4, 8), sparse=True)
        with pytest.raises(ValueError, match="sparse and dense"):
            session.track(memory.piece(0, 12))
        memory.write(1, 5)
        epoch = session.collect()
        assert (set(epoch[dense]), set(epoch[sparse])) == ({1}, {1})
        assert sparse.sparse
        assert not dense.sparse


def test_handles_are_not_copied() -> None:
    """A copy of a session would close the original's descriptors with it; none of the handles has copies."""
    with Raw(4) as memory, Session() as session:
        region = session.track(memory.pair)
        for handle in (session, region, region[:1], session.cursor("other"), session.collect()):
            for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="can't be copied or pickled"):
                    duplicate(handle)
        memory.write(2)
        assert session.collect().pages == 1


def test_a_wrong_call_leaves_no_half_made_session(recwarn: pytest.WarningsRecorder) -> None:
    """The TypeError of a wrong call is all there is: no destructor stumbles."""
    with pytest.raises(TypeError):
        Session("wp-async")  # type: ignore[misc]
    gc.collect()
    assert not recwarn.list


def test_a_closed_session_is_not_entered() -> None:
    """``with`` says so at once."""
    session = Session()
    session.close()
    with pytest.raises(ClosedError, match="closed"), session:
        pass
