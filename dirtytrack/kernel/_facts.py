"""What the system says about itself: files below /proc, /sys and /boot, read and never written.

Information for the reader of ``dirtytrack doctor`` and for the wording of a remedy. Whether tracking works is
never decided here, but by the probes.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import NamedTuple

_CAP_SYS_PTRACE = 19  # include/uapi/linux/capability.h
_OPTIONS = ("USERFAULTFD", "PTE_MARKER_UFFD_WP", "PROC_PAGE_MONITOR")


class HugePages(NamedTuple):
    """The reserve of one size of hugetlb page.

    Attributes:
        nbytes: size of a page in bytes.
        total: pages in the reserve.
        free: pages of it that nobody uses.
    """

    nbytes: int
    total: int
    free: int


class Facts(NamedTuple):
    """The surroundings of this process.

    Attributes:
        release: the kernel's release string.
        machine: the hardware name, as of ``uname -m``.
        page_size: bytes.
        thp: mode of transparent huge pages (always, madvise, never), or None without them.
        hugetlb: every huge page size the kernel offers.
        unprivileged_userfaultfd: the sysctl; None where there is none.
        ptrace_capability: this process has CAP_SYS_PTRACE.
        seccomp: mode of this process: 0 none, 1 strict, 2 a filter; None if unknown.
        container: what it seems to run in, or None.
        config: kernel build options: True built in, False not, None where the configuration can't be read.
    """

    release: str
    machine: str
    page_size: int
    thp: str | None
    hugetlb: tuple[HugePages, ...]
    unprivileged_userfaultfd: int | None
    ptrace_capability: bool
    seccomp: int | None
    container: str | None
    config: dict[str, bool | None]


def read() -> Facts:
    """Read the facts as they are now. What can't be read is None, never an error."""
    status = _process_status()
    return Facts(
        release=platform.release(),
        machine=platform.machine(),
        page_size=os.sysconf("SC_PAGE_SIZE"),
        thp=_selected(_text("/sys/kernel/mm/transparent_hugepage/enabled")),
        hugetlb=_hugetlb(),
        unprivileged_userfaultfd=_number(_text("/proc/sys/vm/unprivileged_userfaultfd")),
        ptrace_capability=bool(int(status.get("CapEff", "0"), 16) >> _CAP_SYS_PTRACE & 1),
        seccomp=_number(status.get("Seccomp", "")),
        container=_container(),
        config=_config(),
    )


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _entries(path: str) -> list[Path]:
    try:
        return list(Path(path).iterdir())
    except OSError:
        return []


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdecimal() else None


def _selected(text: str) -> str | None:
    """The word in brackets, as in ``always [madvise] never``."""
    _, bracket, rest = text.partition("[")
    return rest.partition("]")[0] if bracket else None


def _process_status() -> dict[str, str]:
    pairs = (line.partition(":") for line in _text("/proc/self/status").splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _hugetlb() -> tuple[HugePages, ...]:
    sizes = []
    for entry in _entries("/sys/kernel/mm/hugepages"):
        kibibytes = int(entry.name.removeprefix("hugepages-").removesuffix("kB"))
        total = _number(_text(entry / "nr_hugepages")) or 0
        free = _number(_text(entry / "free_hugepages")) or 0
        sizes.append(HugePages(kibibytes * 1024, total, free))
    return tuple(sorted(sizes, key=lambda size: size.nbytes))


def _container() -> str | None:
    """A guess, from the marks that container engines leave."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    return _text("/run/systemd/container").strip() or None


def _config() -> dict[str, bool | None]:
    lines = _config_text().splitlines()
    if not lines:
        return dict.fromkeys(_OPTIONS)
    return {option: f"CONFIG_{option}=y" in lines for option in _OPTIONS}


def _config_text() -> str:
    import gzip  # slow to import, and needed by few programs

    try:
        with gzip.open("/proc/config.gz", "rt") as file:
            return file.read()
    except OSError:
        release = platform.release()
        return _text(f"/boot/config-{release}") or _text(f"/lib/modules/{release}/config")
