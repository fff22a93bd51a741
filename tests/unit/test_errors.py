"""The exceptions: what catches them, what they say, and that they travel."""

from __future__ import annotations

import errno
import pickle

import pytest

import dirtytrack
from dirtytrack.errors import (
    BusyError,
    ClosedError,
    DirtyTrackError,
    ForkedError,
    KernelError,
    Loss,
    RegionLostError,
    UnsupportedError,
    kernel_error,
)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (RegionLostError, RuntimeError),
        (ForkedError, RuntimeError),
        (ClosedError, ValueError),
        (KernelError, OSError),
        (UnsupportedError, OSError),
        (BusyError, OSError),
    ],
)
def test_every_error_is_also_a_builtin_one(kind: type[Exception], builtin: type[Exception]) -> None:
    """Code that knows nothing of dirtytrack catches the nearest built-in; all share one base."""
    assert issubclass(kind, builtin)
    assert issubclass(kind, DirtyTrackError)
    assert getattr(dirtytrack, kind.__name__) is kind


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES])
def test_a_refused_permission_is_a_permission_error(code: int) -> None:
    """``except PermissionError`` catches what the kernel forbids."""
    error = kernel_error(code, "PAGEMAP_SCAN")
    assert isinstance(error, PermissionError)
    assert isinstance(error, KernelError)
    assert error.errno == code


def test_a_kernel_error_names_call_range_and_remedy() -> None:
    """The message says what failed, on what, why, and what to do."""
    error = kernel_error(errno.EINVAL, "UFFDIO_REGISTER", start=0x1000, stop=0x3000, remedy="Do this.")
    for part in ("UFFDIO_REGISTER", "[0x1000, 0x3000)", "Invalid argument", "Do this."):
        assert part in str(error)
    assert (error.call, error.start, error.stop, error.remedy) == (
        "UFFDIO_REGISTER",
        0x1000,
        0x3000,
        "Do this.",
    )


@pytest.mark.parametrize(
    ("number", "limit"),
    [(errno.EMFILE, "RLIMIT_NOFILE"), (errno.ENFILE, "fs.file-max"), (errno.ENOMEM, "RLIMIT_AS")],
)
def test_a_kernel_error_names_the_limit_that_was_hit(number: int, limit: str) -> None:
    """Whatever the call was."""
    assert limit in kernel_error(number, "PAGEMAP_SCAN").remedy
    assert limit in kernel_error(number, "PAGEMAP_SCAN", remedy="Do this.").remedy


@pytest.mark.parametrize(
    "error",
    [
        kernel_error(errno.EPERM, "PAGEMAP_SCAN", start=0, stop=8, remedy="Try."),
        kernel_error(errno.ENOMEM, "mmap"),
        BusyError(errno.EBUSY, "UFFDIO_REGISTER", start=1, stop=2, remedy="Share a session."),
        UnsupportedError(errno.ENOSYS, "userfaultfd", remedy="Use a newer kernel."),
    ],
)
def test_a_kernel_error_survives_pickling(error: KernelError) -> None:
    """A worker process can hand it over whole."""
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)
    assert twin.errno == error.errno


def test_a_lost_region_survives_pickling_by_its_name() -> None:
    """The region itself stays behind; its repr and its ranges travel."""
    error = RegionLostError("lost", (Loss({"a": 1}, ((0, 4096), (8192, 12288))),))
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == "lost"
    assert twin.losses == (Loss(repr({"a": 1}), ((0, 4096), (8192, 12288))),)


@pytest.mark.parametrize("kind", [ClosedError, ForkedError, DirtyTrackError])
def test_plain_errors_survive_pickling(kind: type[Exception]) -> None:
    """Type and message arrive."""
    twin = pickle.loads(pickle.dumps(kind("what happened")))
    assert type(twin) is kind
    assert str(twin) == "what happened"
