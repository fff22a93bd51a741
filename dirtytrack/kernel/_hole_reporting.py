"""Which holes in memory this kernel reports as written, found by trying.

A hole is a place in mapped memory without a page table entry: never touched, or dropped by MADV_DONTNEED.
"""

from __future__ import annotations

import functools
import os
from enum import StrEnum
from typing import Final, Self

from dirtytrack.errors import DirtyTrackError
from dirtytrack.kernel import _probes
from dirtytrack.native import lib

VARIABLE: Final = "DIRTYTRACK_HOLE_REPORTING"


class HoleReporting(StrEnum):
    """Which holes in memory a kernel reports as written.

    - BLIND, Linux 6.7 to mid-2026: none, so that memory dropped by ``MADV_DONTNEED`` may go unreported.
    - REPORTED, later kernels, and stable ones with the fixes: every hole that is not armed, as other memory.
    - REGISTERED_ONLY, Linux 7.3: the same in registered memory. Outside of it this kernel reports nothing as
      written; the others report everything there.

    Attributes:
        meaning: what such a kernel does, in the doctor's words.
    """

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Self:
        """Define a member. Only definitions get here: ``HoleReporting("blind")`` looks one up."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = member.__doc__ = meaning
        return member

    BLIND = "blind", "does not report memory dropped by MADV_DONTNEED: a second scan finds it"
    REPORTED = "reported", "reports memory dropped by MADV_DONTNEED"
    REGISTERED_ONLY = (
        "registered-only",
        "reports memory dropped by MADV_DONTNEED, and nothing outside tracked memory",
    )


def hole_reporting() -> HoleReporting:
    """Tell which holes the kernel reports, as this library takes it to be.

    The kernel is probed once in a process. Where it can't be, since no userfaultfd can be opened, the answer
    is BLIND, which assumes least, and the next call probes again.

    The environment variable DIRTYTRACK_HOLE_REPORTING=blind makes the answer BLIND. That is right on every
    kernel, at the cost of a second scan, and lets the code for such kernels be tested on any. The variable
    takes no other value: to assume more than the kernel does would lose writes.

    Raises:
        DirtyTrackError: the variable is set to something else.
    """
    return HoleReporting.BLIND if is_blindness_forced() else probed_hole_reporting()


def probed_hole_reporting() -> HoleReporting:
    """Tell which holes the kernel reports, whatever the environment asks for."""
    try:
        return _probe(lib.dt_address_space())
    except OSError:
        return HoleReporting.BLIND


def is_blindness_forced() -> bool:
    """Tell whether the environment asks for BLIND.

    Raises:
        DirtyTrackError: it asks for something else.
    """
    forced = os.environ.get(VARIABLE, "")
    if forced not in ("", HoleReporting.BLIND):
        raise DirtyTrackError(f"{VARIABLE} is {forced!r}: set it to {HoleReporting.BLIND}, or unset it")
    return forced == HoleReporting.BLIND


@functools.lru_cache(maxsize=1)
def _probe(_process: int) -> HoleReporting:
    if _probes.is_blind_to_holes():
        return HoleReporting.BLIND
    if _probes.reports_unregistered():
        return HoleReporting.REPORTED
    return HoleReporting.REGISTERED_ONLY
