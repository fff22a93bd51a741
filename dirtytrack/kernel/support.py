"""What this kernel and the surroundings of this process allow: found by trying, never by a version number.

Distributions backport and containers forbid: only a probe knows. The probes run in memory of their own, take
a few milliseconds together, and leave nothing behind. ``dirtytrack doctor`` prints the result.
"""

from __future__ import annotations

import functools
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from dirtytrack.kernel._check import Cause, Check
from dirtytrack.kernel._flags import Feature
from dirtytrack.kernel._hole_reporting import (
    HoleReporting,
    hole_reporting,
    is_blindness_forced,
    probed_hole_reporting,
)
from dirtytrack.native import lib

if TYPE_CHECKING:
    from dirtytrack.kernel._facts import Facts

__all__ = ["Check", "HoleReporting", "Support", "hole_reporting", "probed_hole_reporting", "support"]


class Support(NamedTuple):
    """What the probes found. It holds for the process that asked, at the time of the call.

    Attributes:
        works: writes to memory can be tracked, proven by tracking some.
        cause: why not: ``kernel`` (too old), ``config`` (built without it), ``seccomp`` (a filter forbids it,
            as in containers), ``permissions`` (of a file, or a security module), ``resources`` (a limit was
            hit). None if it works.
        remedy: what to do about the cause, in a sentence; empty if it works.
        hole_reporting: which holes in memory the kernel reports as written; see `hole_reporting`.
        opened_by: the way to open a userfaultfd: ``syscall``, ``device`` (/dev/userfaultfd), or None.
        features: what userfaultfd offers.
        categories: the page categories that PAGEMAP_SCAN knows, without their prefix ``PAGE_IS_``.
        shared_memory: a memfd can be tracked, proven by tracking one.
        hugetlb: hugetlb memory can be tracked, going by the features.
        facts: the surroundings, for information.
        checks: the lines of the table that the doctor prints.
    """

    works: bool
    cause: Cause | None
    remedy: str
    hole_reporting: HoleReporting
    opened_by: str | None
    features: Feature
    categories: tuple[str, ...]
    shared_memory: bool
    hugetlb: bool
    facts: Facts
    checks: tuple[Check, ...]

    def as_dict(self) -> dict[str, object]:
        """Return it as nested dictionaries, lists and plain values."""
        plain: dict[str, object] = _plain(self)
        plain["features"] = [feature.name for feature in Feature if feature in self.features]
        return plain

    def to_json(self) -> str:
        """Return it as indented JSON."""
        import json  # slow to import, and needed by few programs

        return json.dumps(self.as_dict(), indent=2)


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    if isinstance(value, Enum):
        return value.value
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def support() -> Support:
    """Probe what works here.

    If tracking works, the answer is remembered for the process, and a restriction that comes into force
    later, such as a seccomp filter, is not seen. If it does not work, the next call probes again.

    Raises:
        DirtyTrackError: DIRTYTRACK_HOLE_REPORTING is set to something else than ``blind``.
    """
    found = _support(lib.dt_address_space(), is_blindness_forced())
    if not found.works:
        _support.cache_clear()
    return found


@functools.lru_cache(maxsize=1)
def _support(_process: int, forced: bool) -> Support:
    # Slow to import, as is Python's platform, which it needs; and few programs ask.
    from dirtytrack.kernel._diagnosis import diagnose, gather, table

    evidence = gather()
    diagnosis = diagnose(evidence)
    holes = HoleReporting.BLIND if forced else probed_hole_reporting()
    return Support(
        works=diagnosis is None,
        cause=diagnosis.cause if diagnosis else None,
        remedy=diagnosis.remedy if diagnosis else "",
        hole_reporting=holes,
        opened_by=evidence.opened_by,
        features=evidence.handshake.features,
        categories=evidence.categories,
        shared_memory=evidence.shared == "",
        hugetlb=Feature.WP_HUGETLBFS_SHMEM in evidence.handshake.features and evidence.private == "",
        facts=evidence.facts,
        checks=tuple(table(evidence, holes, forced)),
    )
