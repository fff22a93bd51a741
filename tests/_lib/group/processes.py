"""Forked processes, which end as what they do ends."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable


def forked(act: Callable[[], object]) -> int:
    """The process identifier of a child that does something, and exits with 0; or with 1 if that raises."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        act()
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def codes_of(pids: Iterable[int]) -> list[int]:
    """How they ended, once they have: exit codes, or negative the signals that killed them."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
