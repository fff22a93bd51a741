"""Userfaultfd: what each call does to memory, its life cycle, and what is left of it in a forked child."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import mmap
import os
import socket
from typing import Any

import pytest

from _lib import seccomp
from _lib.kernel.area import PRIVATE, SHARED, TAKE, WRITTEN, Area, Lab, lab
from _lib.support import PAGE_SIZE, address_of, in_child, optional, require_root
from dirtytrack.errors import ClosedError, ForkedError, KernelError, UnsupportedError
from dirtytrack.kernel import pagemap, userfaultfd
from dirtytrack.kernel.userfaultfd import DEFAULT_FEATURES, Feature, Ioctl, Userfaultfd, probe_features


def test_it_opens_with_what_tracking_needs() -> None:
    """The default is asynchronous write-protection of all memory, on a descriptor that no exec inherits."""
    with Userfaultfd() as uffd:
        assert Feature.WP_ASYNC in uffd.enabled
        assert uffd.enabled in uffd.features
        assert uffd.features == probe_features()
        assert uffd.source in ("syscall", "/dev/userfaultfd")
        assert fcntl.fcntl(uffd.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert fcntl.fcntl(uffd.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK


def test_the_kernel_confirms_the_features() -> None:
    """The kernel's own account of the descriptor holds the features asked for."""
    with Userfaultfd() as uffd, open(f"/proc/self/fdinfo/{uffd.fileno()}") as info:
        (line,) = (line for line in info if line.startswith("API:"))
    enabled = int(line.split()[1].split(":")[1], 16)
    assert enabled & uffd.enabled.value == uffd.enabled.value


def test_a_chosen_set_of_features() -> None:
    """Exactly the features given are asked for."""
    with Userfaultfd(Feature.WP_ASYNC) as uffd:
        assert uffd.enabled == Feature.WP_ASYNC


def test_an_unknown_feature_is_named() -> None:
    """A feature that the kernel lacks is named by an UnsupportedError, which leaves no descriptor behind."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(UnsupportedError, match=r"lacks.*1099511627776.*it has.*WP_ASYNC"):
        Userfaultfd(Feature.WP_ASYNC | (1 << 40))
    assert os.listdir("/proc/self/fd") == before


class OldKernel:
    """The C core on a kernel without write-protection of hugetlb and shared memory."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib
        self.asked: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lib, name)

    def dt_uffd_api(self, fd: int, features: Any) -> int:
        self.asked.append(features[0])
        if features[0] & Feature.WP_HUGETLBFS_SHMEM:
            features[0] = 1 << 63  # the kernel asked for real: the descriptor must survive the refusal
        result: int = self._lib.dt_uffd_api(fd, features)
        return result


def test_optional_features_are_left_out(monkeypatch: pytest.MonkeyPatch, lab: Lab) -> None:
    """Where the kernel lacks an optional feature the same descriptor is initialised without it."""
    old = OldKernel(userfaultfd.lib)
    monkeypatch.setattr(userfaultfd, "lib", old)
    area = lab.map(4)
    with Userfaultfd() as uffd:
        assert old.asked == [DEFAULT_FEATURES, Feature.WP_ASYNC]
        assert uffd.enabled == Feature.WP_ASYNC
        uffd.register(area.address, area.stop)
        uffd.write_protect(area.address, area.stop)
        area.touch(2)
        assert area.runs(area.take()) == [(2, 3)]


def test_register_tells_what_the_range_supports(lab: Lab) -> None:
    """Registered anonymous memory can be write-protected; registering arms nothing."""
    area = lab.map(4)
    area.write()
    assert Ioctl.WRITEPROTECT in lab.uffd.register(area.address, area.stop)
    assert area.runs(area.take()) == [(0, 4)]


def test_registering_again_keeps_the_protection(lab: Lab) -> None:
    """A second registration with the same descriptor is allowed and changes nothing."""
    area = lab.armed(4)
    area.touch(1)
    lab.uffd.register(area.address, area.stop)
    assert area.runs(area.take()) == [(1, 2)]


def test_holes_in_the_range_are_skipped(lab: Lab) -> None:
    """Unmapped pages between mappings are no error for any call."""
    area = lab.map(6)
    area.part(2, 4).unmap()
    lab.register(area)
    area.touch(1, 5)
    assert area.written() == [(1, 2), (5, 6)]
    lab.uffd.unregister(area.address, area.stop)
    Area.map(2, at=area.at(2))  # for the fixture to unmap


@pytest.mark.parametrize("flags", [PRIVATE, SHARED], ids=["private", "shared"])
def test_un_protect_declares_written(lab: Lab, flags: int) -> None:
    """Lifting the protection of a page is reported as a write to it, and to no other."""
    area = lab.armed(4, flags=flags)
    lab.uffd.un_protect(area.at(1), area.at(2))
    assert area.runs(area.take()) == [(1, 2)]


def test_write_protect_forgets_writes(lab: Lab) -> None:
    """Arming a written page makes it clean; a later write is found again."""
    area = lab.armed(4)
    area.write()
    lab.uffd.write_protect(area.at(0), area.at(3))
    assert area.runs(area.get()) == [(3, 4)]
    area.touch(0)
    assert area.runs(area.take()) == [(0, 1), (3, 4)]


def test_unregister_releases_a_part(lab: Lab) -> None:
    """What was unregistered is refused by a checked scan, what was not stays armed; twice is no error."""
    area = lab.armed(4)
    for _ in range(2):
        lab.uffd.unregister(area.at(0), area.at(2))
    with pytest.raises(KernelError, match="not registered"):
        area.part(0, 2).take()
    area.touch(3)
    assert area.runs(area.part(2, 4).take()) == [(3, 4)]


def test_close_releases_all(lab: Lab) -> None:
    """Closing the only copy of the descriptor ends every registration."""
    area = lab.map(4)
    with Userfaultfd() as uffd:
        uffd.register(area.address, area.stop)
        assert area.take().walk_end == area.stop
    with pytest.raises(KernelError, match="not registered"):
        area.take()


BAD_RANGES = [
    pytest.param(0, 0, ValueError, "empty or reversed", id="empty"),
    pytest.param(2 * PAGE_SIZE, PAGE_SIZE, ValueError, "empty or reversed", id="reversed"),
    pytest.param(-PAGE_SIZE, PAGE_SIZE, ValueError, "outside of user space", id="negative"),
    pytest.param(1 << 63, (1 << 63) + PAGE_SIZE, ValueError, "outside of user space", id="kernel"),
    pytest.param(1, PAGE_SIZE, ValueError, "not aligned", id="start"),
    pytest.param(0, PAGE_SIZE + 1, ValueError, "not aligned", id="stop"),
    pytest.param(0.0, PAGE_SIZE, TypeError, "float", id="float"),
    pytest.param("0", PAGE_SIZE, TypeError, "str", id="string"),
]
CALLS = ("register", "write_protect", "un_protect", "unregister")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("start", "stop", "kind", "message"), BAD_RANGES)
def test_bad_ranges_never_reach_the_kernel(
    monkeypatch: pytest.MonkeyPatch, call: str, start: Any, stop: Any, kind: type[Exception], message: str
) -> None:
    """A range that can't be one is refused before any system call."""
    with Userfaultfd() as uffd, monkeypatch.context() as patched:
        patched.setattr(userfaultfd, "lib", None)
        with pytest.raises(kind, match=message):
            getattr(uffd, call)(start, stop)


@pytest.mark.parametrize("call", CALLS)
def test_calls_after_close(call: str) -> None:
    """A closed descriptor says so in every call; closing it again does nothing."""
    uffd = Userfaultfd()
    assert not uffd.closed
    uffd.close()
    uffd.close()
    assert uffd.closed
    with pytest.raises(ClosedError, match="is closed"):
        getattr(uffd, call)(0, PAGE_SIZE)
    with pytest.raises(ClosedError, match="is closed"):
        uffd.fileno()
    with pytest.raises(ClosedError, match="is closed"):
        uffd.__enter__()


def test_a_leak_is_reported() -> None:
    """A descriptor that is dropped unclosed is closed, and a ResourceWarning says so."""
    uffd = Userfaultfd()
    fd = uffd.fileno()
    holder = [uffd]
    del uffd
    with pytest.warns(ResourceWarning, match=f"unclosed <Userfaultfd fd {fd} from"):
        holder.clear()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def everything_but_close(uffd: Userfaultfd, area: Area) -> list[str]:
    """The exceptions of every call but close."""
    names = []
    for call in (
        *(lambda name=name: getattr(uffd, name)(area.address, area.stop) for name in CALLS),
        uffd.fileno,
        uffd.__enter__,
    ):
        try:
            call()
        except Exception as error:
            names.append(type(error).__name__)
    return names


def test_a_forked_child_can_only_close(lab: Lab) -> None:
    """In a forked child every call but close raises ForkedError; the parent's memory stays armed."""
    area = lab.armed(4)
    area.touch(1)

    def child() -> list[str]:
        errors = everything_but_close(lab.uffd, area)
        lab.uffd.close()
        return [*errors, str(lab.uffd.closed)]

    assert in_child(child).check() == [ForkedError.__name__] * 6 + ["True"]
    area.touch(2)
    assert area.runs(area.take()) == [(1, 3)]


def test_a_forked_child_leaks_nothing(lab: Lab) -> None:
    """An inherited descriptor that a child drops is closed there without a warning."""
    made = [Userfaultfd()]

    def child() -> None:
        fd = made[0]._fd
        made.clear()
        gc.collect()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

    in_child(child).check()
    made[0].close()


def test_a_fork_while_the_lock_is_held(lab: Lab) -> None:
    """A child forked while the lock is held does not wait for it, and does not touch the descriptor."""
    with lab.uffd._owned():
        result = in_child(lambda: (everything_but_close(lab.uffd, Area(0, 1)), lab.uffd.close()))
    assert result.check() == ([ForkedError.__name__] * 6, None)


def test_a_fork_behind_pythons_back(lab: Lab) -> None:
    """A child forked by C code, of which Python hears nothing, is told apart."""
    uffd = lab.uffd
    libc = ctypes.PyDLL(None)
    pid = libc.fork()
    if pid == 0:
        errors = everything_but_close(uffd, Area(0, 1))
        os._exit(0 if errors == [ForkedError.__name__] * 6 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_grandchild(lab: Lab) -> None:
    """A child's own address space has a name; its child is told apart from both."""
    inherited = lab.uffd

    def child() -> list[str]:
        with Userfaultfd() as own:
            grandchild = in_child(
                lambda: [everything_but_close(uffd, Area(0, 1)) for uffd in (inherited, own)]
            )
            return [name for names in grandchild.check() for name in names]

    assert in_child(child).check() == [ForkedError.__name__] * 12


def test_a_forked_child_opens_its_own(lab: Lab) -> None:
    """A child registers its copy of the memory with a descriptor of its own; the parent sees none of it."""
    area = lab.armed(4)

    def child() -> list[tuple[int, int]]:
        with Userfaultfd() as uffd:
            uffd.register(area.address, area.stop)
            uffd.write_protect(area.address, area.stop)
            area.touch(3)
            return area.runs(area.take())

    assert in_child(child).check() == [(3, 4)]
    assert area.runs(area.take()) == []


def test_where_the_call_is_refused_the_device_serves() -> None:
    """With the system call forbidden, as in containers, /dev/userfaultfd gives a descriptor that tracks."""
    optional(os.access("/dev/userfaultfd", os.R_OK | os.W_OK), "needs access to /dev/userfaultfd")

    def child(errno: int) -> tuple[str, list[tuple[int, int]]]:
        seccomp.install(seccomp.Refuse("userfaultfd", errno))
        with lab() as made:
            area = made.armed(4)
            area.touch(2)
            return made.uffd.source, area.runs(area.take())

    for errno in (1, 13, 38):  # EPERM, EACCES, ENOSYS
        assert in_child(lambda errno=errno: child(errno)).check() == ("/dev/userfaultfd", [(2, 3)])


def test_a_plain_user_may_track() -> None:
    """Without privileges the call works, and what the kernel writes into armed memory arrives, tracked."""
    require_root("to become nobody")

    def child() -> tuple[str, list[tuple[int, int]]]:
        os.setresuid(65534, 65534, 65534)
        check_dumpable()
        with lab() as made:
            area = made.armed(4)
            reader, writer = os.pipe()
            os.write(writer, b"x" * 100)
            target = (ctypes.c_char * 100).from_address(area.at(1))
            assert os.readv(reader, [memoryview(target)]) == 100
            assert area.bytes()[PAGE_SIZE : PAGE_SIZE + 100] == b"x" * 100
            return made.uffd.source, area.runs(area.get(flags=TAKE, mask=WRITTEN))

    assert in_child(child).check() == ("syscall", [(1, 2)])


def check_dumpable() -> None:
    """Let a process that changed its user id look at itself again."""
    assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0  # PR_SET_DUMPABLE


def test_another_process_can_take_it_over() -> None:
    """One that a child has opened acts on the child's memory, as long as that is there."""
    ours, its = socket.socketpair()
    with ours, its, mmap.mmap(-1, 4 * PAGE_SIZE, flags=PRIVATE) as memory:

        def child() -> None:
            memory[:] = bytes(len(memory))
            with Userfaultfd() as uffd:
                socket.send_fds(its, [b"."], [uffd.fileno()])
            its.recv(1)  # that it is registered and armed
            memory[PAGE_SIZE] = 1
            its.send(b".")
            its.recv(1)

        pid = os.fork()
        if pid == 0:
            its, ours = ours, its
            child()
            os._exit(0)
        _, (fd,), _, _ = socket.recv_fds(its, 1, 1)
        with Userfaultfd(DEFAULT_FEATURES, descriptor=fd) as uffd:
            assert (uffd.source, uffd.enabled) == ("descriptor", DEFAULT_FEATURES)
            start = address_of(memory)
            uffd.register(start, start + len(memory))
            uffd.write_protect(start, start + len(memory))
            its.send(b".")
            its.recv(1)
            found = pagemap.scan_all(
                start, start + len(memory), category_mask=pagemap.Category.WRITTEN, pid=pid
            )
            assert [(one.start, one.end) for one in found] == [(start + PAGE_SIZE, start + 2 * PAGE_SIZE)]
            its.send(b".")
            assert os.waitpid(pid, 0)[1] == 0
            with pytest.raises(KernelError):
                uffd.register(start, start + len(memory))
