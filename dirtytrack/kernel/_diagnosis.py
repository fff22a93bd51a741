"""From what the probes came back with to a cause, a remedy, and the doctor's table."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from dirtytrack.kernel import _facts, _hole_reporting, _probes
from dirtytrack.kernel._check import Cause, Check
from dirtytrack.kernel._flags import Feature
from dirtytrack.kernel._hole_reporting import HoleReporting

_REFUSED = (errno.EPERM, errno.EACCES)
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_FILTER = 2  # mode of seccomp in /proc/PID/status

_NEWER_KERNEL = "Boot Linux 6.7 or later (arm64: 6.10 or later)."
_PASS_DEVICE = (
    "In a container pass --device /dev/userfaultfd, or a seccomp profile that allows userfaultfd; "
    "docs/containers.md shows both."
)


class Diagnosis(NamedTuple):
    """Why tracking does not work, which check shows it, and what to do."""

    cause: Cause
    check: str
    remedy: str


class Evidence(NamedTuple):
    """What the probes came back with.

    Attributes:
        facts: the surroundings.
        ways: what became of opening a userfaultfd, by the way of opening it.
        scan: why a plain PAGEMAP_SCAN was refused.
        categories: what PAGEMAP_SCAN knows.
        private: what went wrong in tracking private memory: a refused call, or a wrong answer; empty if
            nothing did, None if not tried.
        shared: the same of shared memory.
    """

    facts: _facts.Facts
    ways: dict[str, _probes.Handshake]
    scan: OSError | None
    categories: tuple[str, ...]
    private: OSError | str | None
    shared: OSError | str | None

    @property
    def opened_by(self) -> str | None:
        """The first way that leads to an asynchronous userfaultfd, or else to any."""
        opened = [name for name, way in self.ways.items() if way.open == 0]
        return next((name for name in opened if self.ways[name].wp_async == 0), next(iter(opened), None))

    @property
    def handshake(self) -> _probes.Handshake:
        """What became of opening it that way; of the system call if none worked."""
        return self.ways[self.opened_by or "syscall"]


def gather() -> Evidence:
    """Run all probes."""
    ways = {name: _probes.handshake(opener) for name, opener in _probes.OPENERS.items()}
    scan = None
    try:
        _probes.scannable()
    except OSError as error:
        scan = error
    categories = () if scan else _probes.categories()
    evidence = Evidence(_facts.read(), ways, scan, categories, None, None)
    if scan or evidence.opened_by is None or evidence.handshake.wp_async:
        return evidence
    opener = _probes.OPENERS[evidence.opened_by]
    return evidence._replace(
        private=_complaint(lambda: _probes.round_trip(opener)),
        shared=_complaint(lambda: _probes.round_trip(opener, shared=True)),
    )


def _complaint(probe: Callable[[], str]) -> OSError | str:
    try:
        return probe()
    except OSError as error:
        return error


def diagnose(evidence: Evidence) -> Diagnosis | None:
    """The first thing that stands in the way of tracking, in the order in which a session meets them."""
    if evidence.opened_by is None:
        return _why_not_opened(evidence)
    if evidence.handshake.wp_async:
        return _why_not_asynchronous(evidence)
    if evidence.scan:
        return _why_not_scannable(evidence, evidence.scan)
    if evidence.private:
        return _why_no_round_trip(evidence, evidence.private)
    return None


def _why_not_opened(evidence: Evidence) -> Diagnosis:
    """Tell who refused: the kernel itself allows any user UFFD_USER_MODE_ONLY, whatever the sysctl is."""
    refusal, filtered = evidence.handshake.open, evidence.facts.seccomp == _FILTER
    name = "userfaultfd"
    if refusal in _NO_ROOM:
        return Diagnosis("resources", name, "Raise the limit of open files (ulimit -n), or close some.")
    if refusal == errno.EINVAL:
        return Diagnosis("kernel", name, _NEWER_KERNEL)
    if refusal == errno.ENOSYS and evidence.facts.config["USERFAULTFD"] is False:
        return Diagnosis("config", name, "Boot a kernel built with CONFIG_USERFAULTFD.")
    if filtered:
        may_not = evidence.ways["device"].open in _REFUSED
        extra = " The device is there, but its permissions are not for this user." if may_not else ""
        return Diagnosis("seccomp", name, _PASS_DEVICE + extra)
    if refusal == errno.ENOSYS:
        return Diagnosis("config", name, "Boot a kernel built with CONFIG_USERFAULTFD.")
    remedy = (
        "A security module (SELinux, AppArmor) forbids it: allow this program to use userfaultfd, or give "
    )
    return Diagnosis("permissions", name, f"{remedy}its user read and write access to /dev/userfaultfd.")


def _why_not_asynchronous(evidence: Evidence) -> Diagnosis:
    name = "WP_ASYNC"
    if evidence.handshake.wp_async != errno.EINVAL and evidence.facts.seccomp == _FILTER:
        return Diagnosis("seccomp", name, "Allow the ioctls of userfaultfd in the seccomp profile.")
    markers = evidence.facts.config["PTE_MARKER_UFFD_WP"]
    if markers is False or (markers is None and evidence.scan is None):
        # A kernel with PAGEMAP_SCAN knows the feature; it lacks it without the option, or on this hardware.
        remedy = "Boot a kernel built with CONFIG_PTE_MARKER_UFFD_WP, on x86-64, arm64 or riscv64."
        return Diagnosis("config", name, remedy)
    return Diagnosis("kernel", name, _NEWER_KERNEL)


def _why_not_scannable(evidence: Evidence, error: OSError) -> Diagnosis:
    name = "PAGEMAP_SCAN"
    if error.errno in (errno.ENOTTY, errno.EINVAL):
        return Diagnosis("kernel", name, _NEWER_KERNEL)
    if error.errno == errno.ENOENT:
        remedy = "Mount /proc, or boot a kernel built with CONFIG_PROC_PAGE_MONITOR."
        return Diagnosis("config", name, remedy)
    if error.errno in _NO_ROOM:
        return Diagnosis("resources", name, "Raise the limit of open files (ulimit -n), or close some.")
    if error.filename is None and evidence.facts.seccomp == _FILTER:
        return Diagnosis("seccomp", name, "Allow ioctl on /proc/self/pagemap in the seccomp profile.")
    remedy = "Let the process read its own /proc/self/pagemap: after a change of user id call "
    return Diagnosis("permissions", name, f"{remedy}prctl(PR_SET_DUMPABLE, 1).")


def _why_no_round_trip(evidence: Evidence, complaint: OSError | str) -> Diagnosis:
    name = "round trip"
    refusal = complaint.errno if isinstance(complaint, OSError) else 0
    if refusal in _NO_ROOM:
        return Diagnosis("resources", name, "Give the process more memory, mappings and open files.")
    if refusal in _REFUSED and evidence.facts.seccomp == _FILTER:
        return Diagnosis("seccomp", name, "Allow the ioctls of userfaultfd in the seccomp profile.")
    return Diagnosis("kernel", name, f"{_NEWER_KERNEL} This one has the calls, but they fail.")


def table(evidence: Evidence, holes: HoleReporting, forced: bool) -> Iterator[Check]:
    """The doctor's table: first what decides, then what it works with, then the surroundings."""
    diagnosis = diagnose(evidence)
    for check in (*_decisive(evidence), *_abilities(evidence, holes, forced)):
        if diagnosis and check.name == diagnosis.check:
            check = Check(check.name, False, check.detail, diagnosis.remedy)
        yield check
    yield from _surroundings(evidence.facts)


def _decisive(evidence: Evidence) -> Iterator[Check]:
    ways = [f"{_WAYS[name]}: {_outcome(way.open)}" for name, way in evidence.ways.items()]
    yield Check("userfaultfd", evidence.opened_by is not None, "; ".join(ways) + " (one is enough)")
    if evidence.opened_by is None:
        yield Check("WP_ASYNC", None, "not tried, there is no userfaultfd")
    else:
        offered = bool(evidence.handshake.features & Feature.WP_ASYNC)
        detail = f"{'' if offered else 'not '}offered, asking for it: {_outcome(evidence.handshake.wp_async)}"
        yield Check("WP_ASYNC", evidence.handshake.wp_async == 0, detail)
    detail = f"knows {', '.join(evidence.categories)}" if evidence.scan is None else str(evidence.scan)
    yield Check("PAGEMAP_SCAN", evidence.scan is None, detail)
    yield _trip("round trip", evidence.private, "private memory: each write was reported, and nothing else")


_WAYS = {"syscall": "system call", "device": "/dev/userfaultfd"}


def _trip(name: str, complaint: OSError | str | None, success: str) -> Check:
    if complaint is None:
        return Check(name, None, "not tried")
    return Check(name, complaint == "", str(complaint) or success)


def _outcome(error: int) -> str:
    return f"{errno.errorcode.get(error, error)} ({os.strerror(error)})" if error else "works"


def _abilities(evidence: Evidence, holes: HoleReporting, forced: bool) -> Iterator[Check]:
    source = f", by {_hole_reporting.VARIABLE}" if forced else ""
    untold = ", assumed as it could not be tried" if evidence.private is None and not forced else ""
    yield Check("dropped memory", None, f"{holes}{source}{untold}: {holes.meaning}")
    yield _trip("shared memory", evidence.shared, "each write was reported, and nothing else")
    if evidence.opened_by is not None:
        supported = bool(evidence.handshake.features & Feature.WP_HUGETLBFS_SHMEM)
        reserve = ", ".join(
            f"{size.free} of {size.total} pages of {size.nbytes >> 10} KiB free"
            for size in evidence.facts.hugetlb
            if size.total
        )
        yield Check("hugetlb", supported, reserve or "no huge pages are reserved")


def _surroundings(facts: _facts.Facts) -> Iterator[Check]:
    yield Check("kernel", None, f"{facts.release} on {facts.machine}, pages of {facts.page_size} bytes")
    yield Check("transparent huge pages", None, facts.thp or "none")
    options = (f"{name}={_yes_no(value)}" for name, value in facts.config.items())
    yield Check("kernel configuration", None, ", ".join(options))
    sysctl = facts.unprivileged_userfaultfd
    yield Check(
        "vm.unprivileged_userfaultfd", None, f"{'unknown' if sysctl is None else sysctl} (not needed)"
    )
    yield Check("CAP_SYS_PTRACE", None, f"{_yes_no(facts.ptrace_capability)} (not needed)")
    modes = {None: "unknown", 0: "no filter", 1: "strict mode", _FILTER: "a filter is in force"}
    yield Check("seccomp", None, modes.get(facts.seccomp, str(facts.seccomp)))
    yield Check("container", None, facts.container or "none that shows")


def _yes_no(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "unknown"}[value]
