"""Userfaultfd: every refusal of the kernel, provoked where that is possible, injected where it is not."""

from __future__ import annotations

import errno
import mmap
import os
import pickle
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from _lib import seccomp
from _lib.kernel.area import MAP_HUGETLB, PRIVATE, Area, Lab, count
from _lib.support import PAGE_SIZE, in_child
from dirtytrack.errors import BusyError, KernelError, UnsupportedError
from dirtytrack.kernel import mappings
from dirtytrack.kernel._refusals import UFFD_REMEDIES
from dirtytrack.kernel.userfaultfd import USER_SPACE_END, Feature, Userfaultfd, probe_features


def test_memory_of_another_userfaultfd(lab: Lab) -> None:
    """Registering memory that another userfaultfd owns is a BusyError with the range and the remedy."""
    area = lab.armed(4)
    area.touch(1)
    with Userfaultfd() as second, pytest.raises(BusyError, match="share a session") as caught:
        second.register(area.address, area.stop)
    assert caught.value.errno == errno.EBUSY
    assert (caught.value.call, caught.value.start, caught.value.stop) == (
        "UFFDIO_REGISTER",
        area.address,
        area.stop,
    )
    assert area.runs(area.take()) == [(1, 2)]


def test_a_foreign_userfaultfd_unregisters_or_is_refused(lab: Lab) -> None:
    """Another userfaultfd's unregister is EINVAL (6.17 and later), or takes the memory away."""
    area = lab.armed(4)
    with Userfaultfd() as second:
        refusal = None
        try:
            second.unregister(area.address, area.stop)
        except KernelError as error:
            refusal = error
    if refusal is None:
        with pytest.raises(KernelError, match="not registered"):
            area.take()
    else:
        assert refusal.errno == errno.EINVAL
        assert "another userfaultfd" in refusal.remedy
        assert area.take().regions == []


def test_a_foreign_userfaultfd_may_arm(lab: Lab) -> None:
    """The kernel lets another userfaultfd of the process arm registered memory; writes are still found."""
    area = lab.armed(4)
    area.touch(1)
    with Userfaultfd() as second:
        second.write_protect(area.address, area.stop)
    area.touch(2)
    assert area.runs(area.take()) == [(2, 3)]


def test_register_where_nothing_is_mapped(lab: Lab) -> None:
    """A range without any mapping is EINVAL."""
    area = lab.map(4)
    area.unmap()
    with pytest.raises(KernelError, match="Nothing is mapped") as caught:
        lab.uffd.register(area.address, area.stop)
    assert caught.value.errno == errno.EINVAL
    Area.map(4, at=area.address)  # for the fixture to unmap


def test_register_special_memory(lab: Lab) -> None:
    """The kernel's own mappings are EINVAL; on older kernels EPERM, as whatever can never be written."""
    (special,) = (mapping for mapping in mappings.overlapping(0, 1 << 63) if mapping.name == "[vvar]")
    with pytest.raises(KernelError, match="vvar") as caught:
        lab.uffd.register(special.start, special.stop)
    assert caught.value.errno in (errno.EINVAL, errno.EPERM)


def test_register_above_user_space(lab: Lab) -> None:
    """An address between the machine's end of user space and the widest one is the kernel's to refuse."""
    with pytest.raises(KernelError, match="above user space") as caught:
        lab.uffd.register(USER_SPACE_END - PAGE_SIZE, USER_SPACE_END)
    assert caught.value.errno == errno.EINVAL


def test_register_a_shared_mapping_that_cannot_be_written(lab: Lab, tmp_path: Path) -> None:
    """A shared mapping of a file opened read-only is EPERM."""
    path = tmp_path / "file"
    path.write_bytes(bytes(PAGE_SIZE))
    with open(path, "rb") as file:
        area = lab.map(1, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED, fd=file.fileno())
    with pytest.raises(KernelError, match="opened read-only") as caught:
        lab.uffd.register(area.address, area.stop)
    assert caught.value.errno == errno.EPERM
    assert isinstance(caught.value, PermissionError)


def test_register_a_part_of_a_huge_page(lab: Lab, hugepages: Callable[[int], int]) -> None:
    """On hugetlb a range that cuts a huge page is EINVAL for register and for write_protect."""
    area = lab.map(hugepages(1) // PAGE_SIZE, flags=PRIVATE | MAP_HUGETLB)
    with pytest.raises(KernelError, match="cuts a hugetlb page") as caught:
        lab.uffd.register(area.at(0), area.at(1))
    assert caught.value.errno == errno.EINVAL
    lab.register(area)
    with pytest.raises(KernelError, match="cuts a hugetlb page") as caught:
        lab.uffd.write_protect(area.at(0), area.at(1))
    assert caught.value.errno == errno.EINVAL


@pytest.mark.slow
def test_too_many_parts_of_mappings() -> None:
    """Registering every second page runs into vm.max_map_count: ENOMEM, and the remedy names the sysctl."""
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    if limit > 1 << 18:
        pytest.skip(f"vm.max_map_count is {limit}: too many registrations for a test")

    def child() -> tuple[int, str, bool]:
        area = Area.map(2 * limit)
        with Userfaultfd() as uffd:
            error = register_every_second(uffd, area)
            uffd.unregister(area.address, area.stop)
        return error.errno or 0, error.remedy, limit // 4 < (error.start - area.address) // PAGE_SIZE < limit

    number, remedy, plausible = in_child(child).check()
    assert number == errno.ENOMEM
    assert "vm.max_map_count" in remedy
    assert plausible


def register_every_second(uffd: Userfaultfd, area: Area) -> KernelError:
    for page in range(0, area.pages, 2):
        try:
            uffd.register(area.at(page), area.at(page + 1))
        except KernelError as error:
            return error
    raise AssertionError("no limit met")


def test_arming_memory_that_is_not_registered(lab: Lab) -> None:
    """A part that is not registered is ENOENT; the mappings before it are armed, as the message says."""
    area = lab.map(6)
    area.write()
    lab.uffd.register(area.at(0), area.at(2))
    with pytest.raises(KernelError, match="what lies before it is done already") as caught:
        lab.uffd.write_protect(area.address, area.stop)
    assert (caught.value.errno, caught.value.start) == (errno.ENOENT, area.address)
    assert area.part(0, 2).take().regions == []
    with pytest.raises(KernelError) as caught:
        lab.uffd.un_protect(area.at(2), area.at(4))
    assert caught.value.errno == errno.ENOENT


def test_no_descriptors_left() -> None:
    """At the limit of open files the error is EMFILE, and the remedy names the limit."""

    def child() -> tuple[int, str]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), 4096))
        spare = []
        try:
            while True:
                spare.append(os.dup(0))
        except OSError:
            pass
        try:
            probe_features()
        except KernelError as error:
            return error.errno or 0, error.remedy
        raise AssertionError("a descriptor was left")

    number, remedy = in_child(child).check()
    assert number == errno.EMFILE
    assert "RLIMIT_NOFILE" in remedy


def test_refused_both_ways() -> None:
    """Without the call and the device the error is the call's, tells of both, and says what to do."""

    def child(refused: int) -> KernelError:
        seccomp.install(
            seccomp.Refuse("userfaultfd", refused),
            seccomp.refuse_ioctl(seccomp.USERFAULTFD_IOC_NEW, errno.EACCES),
        )
        with pytest.raises(UnsupportedError) as caught:
            Userfaultfd()
        return caught.value

    for refused, cause in ((errno.EPERM, "seccomp"), (errno.ENOSYS, "CONFIG_USERFAULTFD")):
        error = in_child(lambda refused=refused: child(refused)).check()
        assert error.errno == refused
        assert cause in error.remedy
        assert "--device /dev/userfaultfd" in error.remedy
        assert "failed with" in error.remedy


REQUESTS = {
    "UFFDIO_API": seccomp.UFFDIO_API,
    "UFFDIO_REGISTER": seccomp.UFFDIO_REGISTER,
    "UFFDIO_UNREGISTER": seccomp.UFFDIO_UNREGISTER,
    "UFFDIO_WRITEPROTECT": seccomp.UFFDIO_WRITEPROTECT,
    "UFFDIO_RWPROTECT": seccomp.UFFDIO_RWPROTECT,
    "UFFDIO_SET_MODE": seccomp.UFFDIO_SET_MODE,
}
CALLS = {
    "UFFDIO_REGISTER": Userfaultfd.register,
    "UFFDIO_UNREGISTER": Userfaultfd.unregister,
    "UFFDIO_WRITEPROTECT": Userfaultfd.write_protect,
    "UFFDIO_RWPROTECT": Userfaultfd.rw_protect,
    "UFFDIO_SET_MODE": lambda uffd, _start, _stop: uffd.set_mode(enable=Feature.RWP_ASYNC),
}


@pytest.mark.parametrize(("call", "number"), sorted(UFFD_REMEDIES))
def test_every_refusal_has_its_exception(call: str, number: int) -> None:
    """Each refusal that the table knows arrives with its errno, the call's name, the range and the remedy."""
    start, stop = 16 * PAGE_SIZE, 18 * PAGE_SIZE

    def child() -> KernelError:
        uffd = Userfaultfd() if call in CALLS else None
        rule = (
            seccomp.refuse_ioctl(REQUESTS[call], number) if call in REQUESTS else seccomp.Refuse(call, number)
        )
        seccomp.install(rule)
        refused = partial(CALLS[call], uffd, start, stop) if uffd else partial(Userfaultfd, Feature.WP_ASYNC)
        with pytest.raises(KernelError) as caught:
            refused()
        return caught.value

    error = in_child(child).check()
    assert (error.errno, error.call) == (number, call)
    assert error.remedy.startswith(UFFD_REMEDIES[call, number])
    assert ("RLIMIT_AS" in error.remedy) == (number == errno.ENOMEM)
    about_a_range = call in CALLS and call != "UFFDIO_SET_MODE"
    assert (error.start, error.stop) == ((start, stop) if about_a_range else (None, None))
    assert isinstance(error, PermissionError) == (number == errno.EPERM)
    assert isinstance(error, BusyError) == (number == errno.EBUSY)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_unforeseen_refusal_is_still_named() -> None:
    """An errno that no table knows is a KernelError with the call and the range, only without a remedy."""

    def child() -> KernelError:
        uffd = Userfaultfd()
        seccomp.install(seccomp.refuse_ioctl(seccomp.UFFDIO_REGISTER, errno.EOWNERDEAD))
        with pytest.raises(KernelError, match=r"UFFDIO_REGISTER on \[0x") as caught:
            uffd.register(16 * PAGE_SIZE, 17 * PAGE_SIZE)
        return caught.value

    error = in_child(child).check()
    assert (error.errno, error.remedy) == (errno.EOWNERDEAD, "")


def test_a_failed_handshake_leaves_no_descriptor() -> None:
    """When the handshake is refused the descriptor is closed, and nothing warns of a leak."""

    def child() -> int:
        before = len(os.listdir("/proc/self/fd"))
        seccomp.install(seccomp.refuse_ioctl(seccomp.UFFDIO_API, errno.EINVAL))
        with pytest.raises(UnsupportedError, match="handshake"):
            Userfaultfd()
        return len(os.listdir("/proc/self/fd")) - before

    assert in_child(child).check() == 0


def test_more_than_was_asked_is_not_registered(lab: Lab) -> None:
    """Registering a part leaves its neighbours unregistered, whatever mapping they share."""
    area = lab.map(6)
    area.write()
    lab.register(area.part(2, 4))
    assert count(area.part(2, 4).written()) == 0
    for outside in (area.part(0, 2), area.part(4, 6)):
        with pytest.raises(KernelError, match="not registered"):
            outside.take()
