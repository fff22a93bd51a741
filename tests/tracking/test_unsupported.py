"""Where tracking can't work, everything says so, and says what to do; on a real kernel that lacks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE, Memory, optional
from dirtytrack.kernel import mappings
from dirtytrack.kernel.pagemap import scan
from dirtytrack.kernel.support import Support
from dirtytrack.kernel.userfaultfd import Userfaultfd

pytestmark = pytest.mark.anywhere


@pytest.fixture(autouse=True)
def found() -> Support:
    """What the probes found on a kernel that is too old."""
    found = dirtytrack.support()
    optional(found.cause == "kernel", "only for kernels that can't track; this one can")
    return found


@pytest.mark.parametrize("make", [dirtytrack.Session, dirtytrack.default_session])
def test_a_session_names_the_remedy(found: Support, make: type[dirtytrack.Session]) -> None:
    """UnsupportedError with what is lacking and which kernel has it; nothing stays open."""
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(dirtytrack.UnsupportedError) as caught:
            make()
        assert caught.value.errno
        for word in ("lacks WP_ASYNC;", "Linux 6.7 or later"):
            assert word in str(caught.value)
        assert "Linux 6.7 or later" in found.remedy
    assert os.listdir("/proc/self/fd") == before


def test_the_raw_layer_is_refused() -> None:
    """A userfaultfd with WP_ASYNC and a scan are refused with the reason; mappings are still listed."""
    with pytest.raises(dirtytrack.UnsupportedError):
        Userfaultfd()
    with Memory(4) as memory:
        with pytest.raises(dirtytrack.UnsupportedError, match=r"6\.7"):
            scan(memory.address, memory.address + memory.nbytes, return_mask=2)
        assert mappings.page_size_at(memory.address) == PAGE_SIZE


def test_the_doctor_names_cause_and_remedy(found: Support) -> None:
    """Exit status 1, the cause and the remedy."""
    command = [sys.executable, "-m", "dirtytrack", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["works"], told["cause"], told["remedy"]) == (False, "kernel", found.remedy)
