"""What the doctor's table is made of."""

from __future__ import annotations

from typing import Literal, NamedTuple

Cause = Literal["kernel", "config", "seccomp", "permissions", "resources"]  # what keeps tracking from working


class Check(NamedTuple):
    """One line of the doctor's table.

    Attributes:
        name: what was looked at.
        ok: True works, False is missing, None is for information.
        detail: what was found.
        remedy: what to do about it; empty if there is nothing to do.
    """

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""
