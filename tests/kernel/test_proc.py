"""Files of /proc: what an error says."""

from __future__ import annotations

import errno
import os

import pytest

from dirtytrack import KernelError
from dirtytrack.kernel.proc import open_proc

pytestmark = pytest.mark.anywhere


def test_this_process_and_another_one() -> None:
    """The same file, by either way."""
    with open_proc("cmdline") as own, open_proc("cmdline", os.getpid()) as named:
        assert own.readall() == named.readall() != b""


def test_what_is_not_there() -> None:
    """The error names the path, and the remedy that was given."""
    with pytest.raises(KernelError, match=r"open /proc/self/nothing.*Look elsewhere") as caught:
        open_proc("nothing", remedy="Look elsewhere.")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(TypeError, match="integer"):
        open_proc("maps", "self")  # type: ignore[arg-type]
