"""``Session(stop_threads=True)``: a scan is of one instant, whatever other threads do; nobody hangs."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

import dirtytrack
from _lib.c_program import build
from _lib.iouring import Ring
from _lib.native_threads import NativeThread, wait_until
from _lib.support import PAGE_SIZE, in_child, optional
from dirtytrack import BusyError, Session
from dirtytrack._lifetime.background import Background

PAGES = 64
PATIENT = 30.0  # seconds in which every thread stops, however busy the machine is

_EVERY_KIND = (
    *(
        "compute",
        "allocate",
        "map",
        "load",
        "read",
        "receive",
        "receive for a time",
        "poll",
        "epoll",
        "select",
    ),
    *("sleep", "condition", "spawn", "write in turn"),
)


@pytest.fixture
def memory():
    return dirtytrack.alloc(PAGES * PAGE_SIZE)


def is_handled(number):
    """Whether the process has a handler of a signal."""
    status = Path("/proc/self/status").read_text()
    mask = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(mask >> (number - 1) & 1)


def is_one_stretch(pages):
    """Whether pages lie side by side, the first one behind the last one."""
    return sum((page + 1) % PAGES not in pages for page in pages) <= 1


@pytest.mark.parametrize("way", ["wp-async", "compare"])
def test_an_epoch_is_of_one_instant(memory, way):
    """A thread writes page after page, round and round: the epochs are stretches that follow each other."""
    with (
        NativeThread("write in turn", memory) as writer,
        Session(backend=way, stop_threads=True, stop_timeout=PATIENT) as session,
    ):
        region = session.track(memory)
        writer.go_on()
        session.collect()
        last = None
        for _ in range(300):
            with session.collect() as epoch:
                pages = set(epoch[region])
                assert epoch.unstopped == ()
            assert is_one_stretch(pages)
            if 0 < len(pages) < PAGES - 1:
                first = next(page for page in pages if (page - 1) % PAGES not in pages)
                # The writer may be stopped between two pages, or have stored to the last one again.
                assert last is None or first in (last, (last + 1) % PAGES)
                last = next(page for page in pages if (page + 1) % PAGES not in pages)
            elif pages:
                last = None


@pytest.mark.parametrize("look", ["peek", "collect"])
def test_beside_threads_of_every_kind(memory, look):
    """They hold malloc's lock, the loader's or the kernel's, start threads, or wait: all are stopped."""
    own = dirtytrack.alloc(PAGES * PAGE_SIZE)
    with ExitStack() as running, Session(stop_threads=True, stop_timeout=PATIENT) as session:
        threads = [running.enter_context(NativeThread(kind, memory)) for kind in _EVERY_KIND]
        region = session.track(own)
        for number in range(50):
            own[number * PAGE_SIZE] = 1
            epoch = getattr(session, look)()
            assert epoch.unstopped == ()
            assert set(epoch[region]) == (set(range(number + 1)) if look == "peek" else {number})
        for thread in threads:
            if thread._kind not in ("read", "receive", "receive for a time"):
                thread.go_on()


def test_beside_threads_of_python(memory):
    """They hold the GIL, or locks of the library: other sessions', and the one's own."""
    failures, stop = [], threading.Event()

    def until_stopped(act):
        def run():
            try:
                while not stop.is_set():
                    act()
            except BaseException as error:
                failures.append(error)

        return threading.Thread(target=run)

    others = [dirtytrack.alloc(PAGES * PAGE_SIZE) for _ in range(3)]
    with (
        Session(stop_threads=True, stop_timeout=PATIENT) as session,
        Session(stop_threads=True, stop_timeout=PATIENT) as second,
        Session() as plain,
        session.cursor("passing by") as cursor,
    ):
        region = session.track(memory)

        def come_and_go():
            with Session(stop_threads=True) as passing:
                passing.track(others[0])
                session.untrack(session.track(others[2]))

        def rival():
            second.untrack(second.track(others[1]))
            assert second.collect().unstopped == ()

        acts = [
            lambda: sum(range(1000)),
            lambda: time.sleep(0.001),
            plain.collect,
            lambda: cursor.collect(region),
            lambda: session.mark(region, 0, 1),
            come_and_go,
            rival,
        ]
        threads = [until_stopped(act) for act in acts]
        for thread in threads:
            thread.start()
        for number in range(200):
            memory[number % PAGES * PAGE_SIZE] ^= 1
            epoch = session.collect(region)
            assert epoch.unstopped == ()
            assert number % PAGES in epoch[region]
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_thread_that_blocks_the_signal_is_waited_for_once(memory):
    """It is named; it costs one wait, until it has handled the signal; then it is stopped again."""
    with NativeThread("block signals") as thread, Session(stop_threads=True, stop_timeout=0.5) as session:
        session.track(memory)
        thread.go_on(0 if thread.done else 1)
        seconds = []
        for _ in range(10):
            begun = time.perf_counter()
            assert thread.id in session.collect().unstopped
            seconds.append(time.perf_counter() - begun)
        assert seconds[0] > 0.5 > min(seconds[1:])


def test_a_thread_that_unblocks_the_signal_is_stopped_again(memory):
    """It handles what was sent to it meanwhile, and is like any other."""
    blocked, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def run():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
        blocked.set()
        go_on.wait()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGURG])
        blocked.set()
        done.wait()

    with Session(stop_threads=True, stop_timeout=0.05) as session:
        session.track(memory)
        thread = threading.Thread(target=run)
        thread.start()
        blocked.wait()
        assert thread.native_id in session.collect().unstopped
        blocked.clear()
        go_on.set()
        blocked.wait()
        wait_until(lambda: thread.native_id not in session.collect().unstopped)
        done.set()
        thread.join()


def test_a_thread_that_waits_for_its_vfork_child(memory):
    """The kernel does not let it handle a signal. Its child, which shares the memory, runs on."""
    with NativeThread("vfork") as thread, Session(stop_threads=True, stop_timeout=0.05) as session:
        session.track(memory)
        wait_until(lambda: thread.id in session.collect().unstopped)
        assert thread.id in session.collect().unstopped


def test_a_thread_of_the_kernel_is_named(memory):
    """io_uring's thread that polls the submission queue handles no signals."""
    setup, polling = 425, 1 << 1  # io_uring_setup, IORING_SETUP_SQPOLL
    with suppress(OSError), Ring():
        pass
    parameters = ctypes.create_string_buffer(120)
    parameters[8:12] = polling.to_bytes(4, sys.byteorder)
    before = set(os.listdir("/proc/self/task"))
    ring = ctypes.CDLL(None, use_errno=True).syscall(setup, 2, parameters)
    optional(ring >= 0, f"io_uring: {os.strerror(ctypes.get_errno())}")
    try:
        (thread,) = set(os.listdir("/proc/self/task")) - before
        with Session(stop_threads=True, stop_timeout=0.05) as session:
            session.track(memory)
            for _ in range(3):
                assert int(thread) in session.collect().unstopped
    finally:
        os.close(ring)


@pytest.mark.parametrize("kind", ["poll", "epoll", "select", "sleep", "receive for a time"])
def test_system_calls_that_fail_with_eintr(memory, kind):
    """These do so whenever a signal was handled, also with SA_RESTART (signal(7))."""
    with NativeThread(kind) as thread, Session(stop_threads=True, stop_timeout=PATIENT) as session:
        session.track(memory)
        while not thread.interrupted:
            session.collect()


@pytest.mark.parametrize("kind", ["read", "receive", "condition"])
def test_system_calls_that_go_on(memory, kind):
    """These begin again where they were."""
    with NativeThread(kind) as thread, Session(stop_threads=True, stop_timeout=PATIENT) as session:
        session.track(memory)
        for _ in range(200):
            assert session.collect().unstopped == ()
        done = thread.done
        thread.wake()
        wait_until(lambda: thread.done > done)
        assert thread.interrupted == 0


def test_python_goes_on_after_eintr(memory):
    """Python's own calls begin again, for the time that is left (PEP 475)."""
    slept = []

    def sleep():
        begun = time.monotonic()
        time.sleep(0.3)
        slept.append(time.monotonic() - begun)

    with Session(stop_threads=True, stop_timeout=PATIENT) as session:
        session.track(memory)
        thread = threading.Thread(target=sleep)
        thread.start()
        while thread.is_alive():
            session.collect()
        thread.join()
    assert slept[0] >= 0.3


def test_the_librarys_own_threads_are_not_stopped(memory):
    """A call in one that would fail with EINTR if it had handled a signal does not."""
    results, libc = [], ctypes.CDLL(None, use_errno=True)
    background = Background("of a test")
    background.start()
    with Session(stop_threads=True, stop_timeout=PATIENT) as session:
        session.track(memory)
        background.put(lambda: results.append(libc.poll(None, 0, 300)))
        while not results:
            assert session.collect().unstopped == ()
    background.stop()
    assert results == [0]


def test_who_waits_for_its_turn_is_stopped(memory):
    """Two sessions collect at the same time: neither waits for the other's thread in vain."""
    rounds, failures = 300, []

    def collect(pages):
        try:
            with Session(stop_threads=True, stop_timeout=PATIENT) as session:
                region = session.track(pages)
                for number in range(rounds):
                    pages[number % PAGES * PAGE_SIZE] ^= 1
                    epoch = session.collect()
                    assert (epoch.unstopped, set(epoch[region])) == ((), {number % PAGES})
        except BaseException as error:
            failures.append(error)

    memories = [memory, dirtytrack.alloc(PAGES * PAGE_SIZE), dirtytrack.alloc(PAGES * PAGE_SIZE)]
    threads = [threading.Thread(target=collect, args=(pages,)) for pages in memories]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_signal_is_handled_while_a_session_stops_threads(memory):
    """And gets its old meaning back with the last one."""

    def child():
        assert not is_handled(signal.SIGURG)
        with Session(stop_threads=True) as first:
            assert first.stop_threads == signal.SIGURG
            with Session(stop_threads=signal.SIGURG):
                assert is_handled(signal.SIGURG)
            assert is_handled(signal.SIGURG)
        assert not is_handled(signal.SIGURG)
        with Session() as plain:
            assert plain.stop_threads == 0
            assert not is_handled(signal.SIGURG)

    in_child(child).check()


def test_a_late_signal_does_no_harm(memory):
    """Also one that kills by default: what is on its way to a thread that blocks it is discarded."""

    def child():
        blocked, go_on = threading.Event(), threading.Event()

        def run():
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
            blocked.set()
            go_on.wait()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])

        thread = threading.Thread(target=run)
        thread.start()
        blocked.wait()
        with Session(stop_threads=signal.SIGUSR1, stop_timeout=0.05) as session:
            session.track(memory)
            assert session.collect().unstopped == (thread.native_id,)
        assert not is_handled(signal.SIGUSR1)
        go_on.set()
        thread.join()

    in_child(child).check()


def test_a_signal_that_has_a_handler(memory):
    """It is refused, at the opening and at each look; nothing is lost, and it goes on when it is free."""

    def child():
        signal.signal(signal.SIGUSR1, lambda *_: None)
        with pytest.raises(BusyError, match="handler") as caught:
            Session(stop_threads=signal.SIGUSR1)
        assert caught.value.errno == errno.EBUSY
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        with Session(stop_threads=signal.SIGUSR1) as session:
            region = session.track(memory)
            memory[3 * PAGE_SIZE] = 1
            signal.signal(signal.SIGUSR1, lambda *_: None)
            for look in (session.collect, session.peek, session.reset, lambda: session.collect(region)):
                with pytest.raises(BusyError, match=f"Signal {int(signal.SIGUSR1)} has a handler"):
                    look()
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            assert set(session.collect()[region]) == {3}

    in_child(child).check()


def test_a_second_copy_of_the_library(memory, tmp_path):
    """It has to use another signal. Then both may stop threads at once, and wait for a bounded time."""
    source = tmp_path / "copy.c"
    source.write_text("#include <dirtytrack.h>\nconst void *anchor(void) { return &dt_tracker_open; }\n")
    copy = ctypes.CDLL(str(build(tmp_path, source, "-shared", "-fPIC", "-Wl,-Bsymbolic")))
    stop_threads = 2
    heap = dirtytrack.alloc(PAGES * PAGE_SIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(heap))

    def child():
        tracker, out, failures = ctypes.c_void_p(), ctypes.create_string_buffer(PAGES // 8), []
        with Session(stop_threads=True) as session:
            region = session.track(memory)
            assert (
                copy.dt_tracker_open(ctypes.c_size_t(PAGE_SIZE), stop_threads, ctypes.byref(tracker))
                == -errno.EBUSY
            )
            assert copy.dt_tracker_open(ctypes.c_size_t(PAGE_SIZE), 0, ctypes.byref(tracker)) == 0
            assert (
                copy.dt_tracker_stop_threads(tracker, int(signal.SIGURG), ctypes.c_uint64(10**7))
                == -errno.EBUSY
            )
            assert copy.dt_tracker_stop_threads(tracker, int(signal.SIGUSR2), ctypes.c_uint64(10**7)) == 0
            assert (
                copy.dt_tracker_add(tracker, ctypes.c_void_p(address), ctypes.c_size_t(len(heap)), 0, None)
                == 0
            )
            done = threading.Event()

            def take():
                for number in range(40):
                    heap[number % PAGES * PAGE_SIZE] ^= 1
                    if copy.dt_tracker_take(tracker, out, ctypes.c_size_t(len(out)), None):
                        failures.append(number)
                    if not out.raw[number % PAGES // 8] >> number % PAGES % 8 & 1:
                        failures.append(number)
                done.set()

            thread = threading.Thread(target=take)
            thread.start()
            number = 0
            while not done.is_set():
                number += 1
                memory[number % PAGES * PAGE_SIZE] ^= 1
                assert number % PAGES in session.collect()[region]
            thread.join()
            copy.dt_tracker_close(tracker)
        assert failures == []

    in_child(child).check()


def test_a_fork_in_the_middle(memory):
    """A child has no stop under way, and can begin its own; the parent's go on.

    A thread that forks has signals blocked, and may wait for malloc's lock, which a stopped one has: it is
    let go.
    """
    forking = NativeThread("fork")

    def child():
        with forking as native, Session(stop_threads=True) as session:
            region = session.track(memory)
            stop, statuses = threading.Event(), []

            def fork():
                while not stop.is_set():
                    pid = os.fork()
                    if pid == 0:
                        status = 1
                        with suppress(BaseException), Session(stop_threads=True) as own:
                            other = dirtytrack.alloc(2 * PAGE_SIZE)
                            tracked = own.track(other)
                            other[PAGE_SIZE] = 1
                            epoch = own.collect()
                            status = 0 if (epoch.unstopped, set(epoch[tracked])) == ((), {1}) else 2
                        os._exit(status)
                    statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

            thread = threading.Thread(target=fork)
            thread.start()
            number = 0
            while len(statuses) < 20 or number < 100:
                number += 1
                memory[number % PAGES * PAGE_SIZE] ^= 1
                assert number % PAGES in session.collect()[region]
            stop.set()
            thread.join()
            assert set(statuses) == {0}
            native.go_on()

    in_child(child).check()


def test_interrupts_in_the_middle(memory):
    """Handlers run when a stop is over; none is lost, and no page."""
    computing = NativeThread("compute")

    def child():
        caught, due, armed = 0, set(), False

        def strike(*_):
            nonlocal caught
            caught += 1
            if armed:
                raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, strike)
        with computing, Session(stop_threads=True, stop_timeout=PATIENT) as session:
            region = session.track(memory)
            for number in range(300):
                page = number % PAGES
                memory[page * PAGE_SIZE] ^= 1
                due.add(page)
                signal.setitimer(signal.ITIMER_REAL, 1e-5 * (1 + number % 40))
                try:
                    armed = True
                    with session.collect() as epoch:
                        due -= set(epoch[region])
                    armed = False
                except KeyboardInterrupt:  # which may come when the epoch has ended, and the page is not due
                    armed = False
            gc.collect()
            assert due <= set(session.collect()[region])
        assert caught

    in_child(child).check()


def test_a_first_thread_that_has_ended_is_no_longer_waited_for():
    """It stays in the list of threads until the others end."""
    code = (
        "import ctypes, os, threading, dirtytrack\n"
        "memory = dirtytrack.alloc(4096)\n"
        "session = dirtytrack.Session(stop_threads=True, stop_timeout=30)\n"
        "session.track(memory)\n"
        "def work():\n"
        "    while open(f'/proc/self/task/{os.getpid()}/stat').read().rsplit(')')[1].split()[0] != 'Z':\n"
        "        pass\n"
        "    print(session.collect().unstopped, flush=True)\n"
        "    os._exit(0)\n"
        "threading.Thread(target=work).start()\n"
        "ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "()\n", "")


def test_sessions_that_stop_none_name_none(memory):
    with NativeThread("block signals"), Session() as session:
        session.track(memory)
        assert session.collect().unstopped == ()


def test_nothing_to_scan_stops_nobody():
    with NativeThread("block signals") as thread, Session(stop_threads=True, stop_timeout=PATIENT) as session:
        thread.go_on(0 if thread.done else 1)
        assert session.collect().unstopped == ()


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"stop_threads": "yes"}, TypeError),
        ({"stop_threads": None}, TypeError),
        ({"stop_threads": 1.5}, TypeError),
        ({"stop_threads": -1}, ValueError),
        ({"stop_threads": 65}, ValueError),
        ({"stop_threads": signal.SIGKILL}, ValueError),
        ({"stop_threads": signal.SIGSTOP}, ValueError),
        ({"stop_threads": signal.SIGSEGV}, ValueError),
        ({"stop_threads": signal.SIGCHLD}, ValueError),
        ({"stop_threads": True, "stop_timeout": 0}, ValueError),
        ({"stop_threads": True, "stop_timeout": -1}, ValueError),
        ({"stop_threads": True, "stop_timeout": float("nan")}, ValueError),
        ({"stop_threads": True, "stop_timeout": "long"}, ValueError),
        ({"stop_timeout": True}, ValueError),
    ],
)
def test_arguments_that_are_refused(arguments, error):
    with pytest.raises(error, match=r"stop_(threads|timeout)"):
        Session(backend="compare", **arguments)
