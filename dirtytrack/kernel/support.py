"""What this kernel, and this process's surroundings, allow: found by trying, never by a version number.

Distributions backport and containers forbid: only a probe knows. The probes run in memory of their own, take
a few milliseconds together, and leave nothing behind. ``dirtytrack doctor`` prints the result.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from dirtytrack.errors import DirtyTrackError
from dirtytrack.kernel.userfaultfd import Feature
from dirtytrack.native import lib

if TYPE_CHECKING:
    from dirtytrack.kernel._diagnosis import Check
    from dirtytrack.kernel._facts import Facts

__all__ = ["Support", "hole_epoch", "probed_hole_epoch", "support"]

_EPOCH_VARIABLE = "DIRTYTRACK_KERNEL_EPOCH"


class Support(NamedTuple):
    """What was found. It holds for the process that asked, as it was then.

    Attributes:
        works: writes to memory can be tracked, proven by tracking some.
        cause: why not: ``kernel`` (too old), ``config`` (built without it), ``seccomp`` (a filter forbids it,
            as in containers), ``permissions`` (of a file, or a security module), ``resources`` (a limit was
            hit). None if it works.
        remedy: what to do about the cause, in a sentence; empty if it works.
        epoch: how the kernel treats memory without page table entries; see `hole_epoch`.
        opened_by: how a userfaultfd is had: ``syscall``, ``device`` (/dev/userfaultfd), or None.
        features: what userfaultfd offers.
        categories: the page categories that PAGEMAP_SCAN knows, without their prefix ``PAGE_IS_``.
        shared_memory: a memfd can be tracked, proven by tracking one.
        hugetlb: hugetlb memory can be tracked, going by the features.
        facts: the surroundings, for information.
        checks: all of it, line by line, as the doctor prints it.
    """

    works: bool
    cause: str | None
    remedy: str
    epoch: str
    opened_by: str | None
    features: Feature
    categories: tuple[str, ...]
    shared_memory: bool
    hugetlb: bool
    facts: Facts
    checks: tuple[Check, ...]

    def as_dict(self) -> dict[str, object]:
        """The same as nested dictionaries, lists and plain values."""
        plain: dict[str, object] = _plain(self)
        plain["features"] = [feature.name for feature in Feature if feature in self.features]
        return plain

    def to_json(self) -> str:
        """The same as indented JSON."""
        import json  # slow to import, and needed by few programs

        return json.dumps(self.as_dict(), indent=2)


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def support() -> Support:
    """Probe what works. What does is remembered for the process; what does not is tried again at every call.

    What comes into force later, such as a seccomp filter, is not seen.

    Raises:
        DirtyTrackError: DIRTYTRACK_KERNEL_EPOCH is set to something else than E1.
    """
    found = _support(lib.dt_address_space(), _e1_is_forced())
    if not found.works:
        _support.cache_clear()
    return found


def hole_epoch() -> str:
    """How the kernel treats memory without page table entries: ``E1``, ``E2`` or ``E3``.

    - E1, Linux 6.7 to mid-2026: it is never "written", so that dropped memory (``MADV_DONTNEED``) may go
      unreported.
    - E2, later, and stable kernels with the fixes: it is "written" until armed, like any other memory.
    - E3, Linux 7.3: as E2; and memory outside a registration is never reported, where it always was before.

    Where it can't be found out, since no userfaultfd is to be had, the answer is E1, which assumes least.
    Probed once in a process. With the environment variable DIRTYTRACK_KERNEL_EPOCH=E1 the answer is E1: right
    on every kernel, at the cost of a second scan, so that the way of E1 can be tested on any. No other value
    is allowed: to assume more than the kernel does would lose writes.

    Raises:
        DirtyTrackError: the variable is set to something else.
    """
    return "E1" if _e1_is_forced() else probed_hole_epoch()


def probed_hole_epoch() -> str:
    """The same without regard to the environment."""
    return _probed_epoch(lib.dt_address_space())


def _e1_is_forced() -> bool:
    forced = os.environ.get(_EPOCH_VARIABLE, "")
    if forced not in ("", "E1"):
        raise DirtyTrackError(f"{_EPOCH_VARIABLE} is {forced!r}: only E1 can be asked for, or unset it")
    return forced == "E1"


@functools.lru_cache(maxsize=1)
def _probed_epoch(_process: int) -> str:
    from dirtytrack.kernel import _probes  # not before a session or a question needs it

    for opener in _probes.OPENERS.values():
        try:
            return _probes.hole_epoch(opener)
        except OSError:
            continue
    return "E1"


@functools.lru_cache(maxsize=1)
def _support(process: int, forced: bool) -> Support:
    from dirtytrack.kernel._diagnosis import diagnose, gather, table  # not before somebody asks

    evidence = gather()
    diagnosis = diagnose(evidence)
    epoch = "E1" if forced else _probed_epoch(process)
    return Support(
        works=diagnosis is None,
        cause=diagnosis.cause if diagnosis else None,
        remedy=diagnosis.remedy if diagnosis else "",
        epoch=epoch,
        opened_by=evidence.opened_by,
        features=evidence.handshake.features,
        categories=evidence.categories,
        shared_memory=evidence.shared == "",
        hugetlb=Feature.WP_HUGETLBFS_SHMEM in evidence.handshake.features and evidence.private == "",
        facts=evidence.facts,
        checks=tuple(table(evidence, epoch, forced)),
    )
