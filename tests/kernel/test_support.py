"""What the probes say about this kernel, and about kernels and containers played by a seccomp filter."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import resource
from pathlib import Path
from typing import Any

import pytest

from _lib import seccomp
from _lib.support import PAGE_SIZE, PMD_SIZE, Memory, in_child, optional, require, require_root
from dirtytrack.errors import DirtyTrackError
from dirtytrack.kernel import _facts, pagemap
from dirtytrack.kernel._diagnosis import Evidence, diagnose
from dirtytrack.kernel._probes import Handshake
from dirtytrack.kernel.pagemap import Category
from dirtytrack.kernel.support import HoleReporting, Support, hole_reporting, support
from dirtytrack.kernel.userfaultfd import Feature, Userfaultfd

NO_SYSCALL = seccomp.Refuse("userfaultfd", errno.EPERM)
NO_DEVICE = seccomp.refuse_ioctl(seccomp.USERFAULTFD_IOC_NEW, errno.EPERM)
NOBODY = 65534


@pytest.fixture(autouse=True)
def _no_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about the kernel as it is, also when the suite runs with the switch."""
    monkeypatch.delenv("DIRTYTRACK_HOLE_REPORTING", raising=False)


def probe_under(*rules: seccomp.Refuse) -> Support:
    """The result of the probes in a child under a seccomp filter."""

    def child() -> Support:
        seccomp.install(*rules)
        return support()

    found: Support = in_child(child).check()
    return found


def become_nobody(*, dumpable: bool) -> None:
    """Drop root for good; the process may not read its own pagemap until it is dumpable again."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    if dumpable:
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE


def check_of(found: Support, name: str) -> Any:
    """The one check of that name."""
    (check,) = [check for check in found.checks if check.name == name]
    return check


def test_tracking_works_on_this_kernel() -> None:
    """The probes find what a system call of our own finds: a userfaultfd for plain users, by the call."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall({"x86_64": 323, "aarch64": 282}[platform.machine()], 1 | os.O_CLOEXEC)
    require(fd >= 0, "userfaultfd is refused here")
    os.close(fd)
    found = support()
    assert found.works
    assert (found.cause, found.remedy) == (None, "")
    assert found.opened_by == "syscall"
    assert Feature.WP_ASYNC in found.features
    assert found.shared_memory
    assert {"WRITTEN", "PRESENT", "SWAPPED"} <= set(found.categories)
    assert found.facts.page_size == PAGE_SIZE
    assert all(check.ok is not False for check in found.checks)


def test_categories_are_those_a_scan_accepts() -> None:
    """A category is listed if, and only if, asking for it is no error."""
    with Memory(1) as memory:
        for category in Category:
            arguments = {"category_mask": 0, "return_mask": category, "vec_len": 4}
            try:
                pagemap.scan(memory.address, memory.address + PAGE_SIZE, **arguments)
                accepted = True
            except OSError:
                accepted = False
            assert accepted == (category.name in support().categories), category


@pytest.mark.parametrize("huge", [False, True])
def test_dropped_memory_is_reported_as_is_said(huge: bool) -> None:
    """Armed, dropped memory is reported whole, except by a blind kernel, which misses a dropped huge page."""
    require(not huge or support().facts.thp in ("always", "madvise"), "transparent huge pages are off")
    pages = PMD_SIZE // PAGE_SIZE
    with Memory(2 * pages) as memory, Userfaultfd() as uffd:
        first = -memory.address % PMD_SIZE // PAGE_SIZE
        start = memory.address + first * PAGE_SIZE
        memory.advise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
        memory.fill(1)
        uffd.register(start, start + PMD_SIZE)
        uffd.write_protect(start, start + PMD_SIZE)
        memory.advise(mmap.MADV_DONTNEED, first, first + pages)
        written = {"category_mask": Category.WRITTEN}
        fast = pagemap.scan_all(start, start + PMD_SIZE, **written, return_mask=Category.WRITTEN)
        slow = pagemap.scan_all(
            start, start + PMD_SIZE, **written, return_mask=Category.WRITTEN | Category.PRESENT
        )
    whole = [(start, start + PMD_SIZE)]
    reported = all([(run.start, run.end) for run in runs] == whole for runs in (fast, slow))
    assert reported == (hole_reporting() is not HoleReporting.BLIND)


def test_unregistered_memory_is_reported_as_is_said() -> None:
    """A written page that nobody tracks is reported, but for kernels that report registered memory only."""
    with Memory(1) as memory:
        memory.touch(0)
        stop = memory.address + PAGE_SIZE
        asked = {"category_mask": Category.WRITTEN, "return_mask": Category.WRITTEN}
        runs = pagemap.scan(memory.address, stop, **asked).regions
    assert bool(runs) == (hole_reporting() is not HoleReporting.REGISTERED_ONLY)


def test_environment_asks_for_blindness(monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch decides, and the doctor's table says that it did."""
    monkeypatch.setenv("DIRTYTRACK_HOLE_REPORTING", "blind")
    assert hole_reporting() is HoleReporting.BLIND
    assert support().hole_reporting is HoleReporting.BLIND
    assert "DIRTYTRACK_HOLE_REPORTING" in check_of(support(), "dropped memory").detail
    monkeypatch.delenv("DIRTYTRACK_HOLE_REPORTING")
    assert "DIRTYTRACK_HOLE_REPORTING" not in check_of(support(), "dropped memory").detail


@pytest.mark.parametrize("value", ["BLIND", "reported", "registered-only"])
def test_nothing_else_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A mistyped switch is not taken for none; nothing makes the library assume more than the kernel does."""
    monkeypatch.setenv("DIRTYTRACK_HOLE_REPORTING", value)
    for call in (hole_reporting, support):
        with pytest.raises(DirtyTrackError, match=f"DIRTYTRACK_HOLE_REPORTING is '{value}': set it to blind"):
            call()


def test_probed_once_in_a_process_and_anew_in_a_child() -> None:
    """The result is kept, but not across fork: the child may be confined in another way."""
    mine = support()
    assert support() is mine
    assert in_child(lambda: (support() is mine, support().works == mine.works)).check() == (False, True)


def test_probes_leave_nothing_behind() -> None:
    """After a round of probes the process has the descriptors and the mappings that it had."""

    def child() -> list[tuple[list[str], int]]:
        def state() -> tuple[list[str], int]:
            maps = Path("/proc/self/maps").read_text().splitlines()
            return sorted(os.listdir("/proc/self/fd")), len(maps)

        from dirtytrack.kernel._hole_reporting import _probe
        from dirtytrack.kernel.support import _support

        states = []
        for _ in range(5):
            _support.cache_clear()
            _probe.cache_clear()
            support()
            states.append(state())
        return states[-2:]

    before, after = in_child(child).check()
    assert before == after


def test_result_is_json() -> None:
    """The JSON says what the object says, in plain values."""
    plain = json.loads(support().to_json())
    assert plain["works"] is True
    assert plain["hole_reporting"] == hole_reporting().value
    assert "WP_ASYNC" in plain["features"]
    assert plain["facts"]["page_size"] == PAGE_SIZE
    assert [check["name"] for check in plain["checks"]] == [check.name for check in support().checks]


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS])
def test_seccomp_forbids_userfaultfd(code: int) -> None:
    """A container's filter is named as the cause, whichever errno it answers with."""
    found = probe_under(seccomp.Refuse("userfaultfd", code), NO_DEVICE)
    assert not found.works
    assert found.cause == "seccomp"
    assert "--device /dev/userfaultfd" in found.remedy
    assert found.opened_by is None
    assert found.hole_reporting is HoleReporting.BLIND
    assert not found.shared_memory
    assert not found.hugetlb
    failed = [check for check in found.checks if check.ok is False]
    assert [check.name for check in failed] == ["userfaultfd"]
    assert errno.errorcode[code] in failed[0].detail
    assert failed[0].remedy == found.remedy


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS])
def test_device_replaces_the_system_call(code: int) -> None:
    """Where the call is refused and /dev/userfaultfd may be opened, tracking works."""
    require_root("/dev/userfaultfd is root's by default")
    require(Path("/dev/userfaultfd").exists(), "this system has no /dev/userfaultfd")
    found = probe_under(seccomp.Refuse("userfaultfd", code))
    assert found.works
    assert found.opened_by == "device"
    assert found.hole_reporting is hole_reporting()


def test_kernel_without_the_scan_ioctl() -> None:
    """ENOTTY from PAGEMAP_SCAN means a kernel before 6.7."""
    found = probe_under(seccomp.refuse_ioctl(seccomp.PAGEMAP_SCAN, errno.ENOTTY))
    assert (found.works, found.cause) == (False, "kernel")
    assert "6.7" in found.remedy
    assert found.categories == ()
    check = check_of(found, "PAGEMAP_SCAN")
    assert (check.ok, check.remedy) == (False, found.remedy)


def test_kernel_without_async_write_protection() -> None:
    """A refused handshake means a kernel without WP_ASYNC, however it came to be."""
    found = probe_under(seccomp.refuse_ioctl(seccomp.UFFDIO_API, errno.EINVAL))
    assert not found.works
    markers = found.facts.config["PTE_MARKER_UFFD_WP"]
    assert found.cause == ("kernel" if markers else "config")
    assert not check_of(found, "WP_ASYNC").ok
    assert "EINVAL" in check_of(found, "WP_ASYNC").detail


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (seccomp.UFFDIO_API, "WP_ASYNC"),
        (seccomp.PAGEMAP_SCAN, "PAGEMAP_SCAN"),
        (seccomp.UFFDIO_REGISTER, "round trip"),
        (seccomp.UFFDIO_WRITEPROTECT, "round trip"),
    ],
)
def test_seccomp_forbids_an_ioctl(request_: int, name: str) -> None:
    """A filter on one ioctl is found at the step that it breaks."""
    found = probe_under(seccomp.refuse_ioctl(request_, errno.EPERM))
    assert (found.works, found.cause) == (False, "seccomp")
    assert [check.name for check in found.checks if check.ok is False and check.remedy] == [name]


def test_works_as_a_plain_user() -> None:
    """No privilege is needed, and /dev/userfaultfd not either."""

    def child() -> Support:
        become_nobody(dumpable=True)
        return support()

    found = in_child(child).check()
    assert found.works
    assert found.opened_by == "syscall"
    assert not found.facts.ptrace_capability


def test_plain_user_whom_a_filter_forbids() -> None:
    """A plain user has no way left, and is told about both."""
    optional(
        not os.access("/dev/userfaultfd", os.W_OK) or os.geteuid() == 0, "the device is open to this user"
    )

    def child() -> Support:
        become_nobody(dumpable=True)
        seccomp.install(NO_SYSCALL)
        return support()

    found = in_child(child).check()
    assert (found.works, found.cause) == (False, "seccomp")
    detail = check_of(found, "userfaultfd").detail
    assert "system call: EPERM" in detail
    assert "/dev/userfaultfd: E" in detail


def test_process_that_may_not_look_at_itself() -> None:
    """After a change of user ids /proc/self/pagemap is closed; the remedy names the call that helps."""
    require_root("changing the user id")

    def child() -> Support:
        become_nobody(dumpable=False)
        return support()

    found = in_child(child).check()
    assert (found.works, found.cause) == (False, "permissions")
    assert "PR_SET_DUMPABLE" in found.remedy
    assert "/proc/self/pagemap" in check_of(found, "PAGEMAP_SCAN").detail


def test_no_descriptor_left() -> None:
    """A full file table is told from a forbidden call."""

    def child() -> Support:
        highest = os.dup(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))
        return support()

    found = in_child(child).check()
    assert (found.works, found.cause) == (False, "resources")
    assert "ulimit -n" in found.remedy


def test_what_did_not_work_is_tried_again() -> None:
    """Once the limit is raised the next call finds that tracking works, and how holes are reported."""

    def child() -> list[Support]:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = os.dup(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, before[1]))
        found = [support()]
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        return [*found, support(), support()]

    failed, *later = in_child(child).check()
    assert not failed.works
    assert all(found.works for found in later)
    assert [found.hole_reporting for found in later] == [hole_reporting()] * 2


def _evidence(**changes: Any) -> Evidence:
    """A kernel on which all is well, but for the changes."""
    facts = _facts.Facts(
        release="6.12.0",
        machine="x86_64",
        page_size=4096,
        thp=None,
        hugetlb=(),
        unprivileged_userfaultfd=0,
        ptrace_capability=False,
        seccomp=changes.pop("seccomp", 0),
        container=None,
        config={"USERFAULTFD": None, "PTE_MARKER_UFFD_WP": None} | changes.pop("config", {}),
    )
    ways = {
        "syscall": changes.pop("syscall", Handshake(0, 0, Feature.WP_ASYNC)),
        "device": changes.pop("device", Handshake(errno.ENOENT)),
    }
    return Evidence(facts, ways, None, ("WRITTEN",), "", "")._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "cause", "name"),
    [
        ({}, None, None),
        ({"syscall": Handshake(errno.EINVAL)}, "kernel", "userfaultfd"),
        ({"syscall": Handshake(errno.ENOSYS)}, "config", "userfaultfd"),
        ({"syscall": Handshake(errno.ENOSYS), "seccomp": 2}, "seccomp", "userfaultfd"),
        (
            {"syscall": Handshake(errno.ENOSYS), "seccomp": 2, "config": {"USERFAULTFD": False}},
            "config",
            "userfaultfd",
        ),
        ({"syscall": Handshake(errno.EPERM)}, "permissions", "userfaultfd"),
        ({"syscall": Handshake(errno.EPERM), "seccomp": 2}, "seccomp", "userfaultfd"),
        ({"syscall": Handshake(errno.ENFILE)}, "resources", "userfaultfd"),
        (
            {"syscall": Handshake(0, 0, Feature(0), errno.EINVAL), "scan": OSError(errno.ENOTTY, "no")},
            "kernel",
            "WP_ASYNC",
        ),
        ({"syscall": Handshake(0, 0, Feature(0), errno.EINVAL)}, "config", "WP_ASYNC"),
        (
            {
                "syscall": Handshake(0, 0, Feature(0), errno.EINVAL),
                "scan": OSError(errno.ENOTTY, "no"),
                "config": {"PTE_MARKER_UFFD_WP": False},
            },
            "config",
            "WP_ASYNC",
        ),
        ({"scan": OSError(errno.EINVAL, "no")}, "kernel", "PAGEMAP_SCAN"),
        ({"scan": OSError(errno.ENOENT, "no", "/proc/self/pagemap")}, "config", "PAGEMAP_SCAN"),
        ({"scan": OSError(errno.EACCES, "no", "/proc/self/pagemap")}, "permissions", "PAGEMAP_SCAN"),
        ({"scan": OSError(errno.ENOMEM, "no")}, "resources", "PAGEMAP_SCAN"),
        ({"private": "page 1 was written, the pages reported are []"}, "kernel", "round trip"),
        ({"private": OSError(errno.ENOMEM, "no")}, "resources", "round trip"),
        ({"private": OSError(errno.EPERM, "no")}, "kernel", "round trip"),
        ({"shared": "page 1 was written, the pages reported are []"}, None, None),
    ],
)
def test_cause_follows_from_the_evidence(
    changes: dict[str, Any], cause: str | None, name: str | None
) -> None:
    """Each combination of refusals that kernels and containers produce has one cause, seen at one check."""
    diagnosis = diagnose(_evidence(**changes))
    if cause is None:
        assert diagnosis is None
    else:
        assert diagnosis is not None
        assert (diagnosis.cause, diagnosis.check) == (cause, name)
        assert diagnosis.remedy.endswith(".")


def test_device_is_taken_when_only_it_is_asynchronous() -> None:
    """A way that leads to WP_ASYNC is preferred to one that only opens."""
    old = Handshake(0, 0, Feature(0), errno.EINVAL)
    assert _evidence(syscall=old, device=Handshake(0, 0, Feature.WP_ASYNC)).opened_by == "device"
    assert _evidence(syscall=old, device=old).opened_by == "syscall"
