"""PAGEMAP_SCAN: every refusal, as an exception with the errno, the call, the range and the remedy."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from _lib import seccomp
from _lib.kernel.area import WRITTEN, Lab
from _lib.support import PAGE_SIZE, in_child, require_root
from dirtytrack.errors import KernelError, UnsupportedError
from dirtytrack.kernel import _refusals, pagemap
from dirtytrack.kernel._flags import FIRST, ScanBit
from dirtytrack.kernel._scan_arg import SCAN_ARG_SIZE, ScanArg
from dirtytrack.kernel.pagemap import Category, ScanFlags, scan, scan_all
from dirtytrack.native import ffi, lib

KERNEL_HALF = 0xFFFF_8000_0000_0000  # arm64 ignores the bits that are not as bit 55

REFUSALS = [
    pytest.param({"size": 95}, errno.EINVAL, "argument has 96 bytes", id="size below"),
    pytest.param({"size": 104}, errno.EINVAL, "argument has 96 bytes", id="size above"),
    pytest.param({"flags": 4}, errno.EINVAL, "flags has the unknown bits 0x4", id="flag"),
    pytest.param({"category_mask": 1 << 40}, errno.EINVAL, "of Category", id="category_mask"),
    pytest.param({"category_inverted": 1 << 40}, errno.EINVAL, "of Category", id="category_inverted"),
    pytest.param({"category_anyof_mask": 1 << 40}, errno.EINVAL, "of Category", id="anyof mask"),
    pytest.param({"return_mask": 1 << 40}, errno.EINVAL, "bits 0x10000000000: use", id="return_mask"),
    pytest.param({"shift": 1}, errno.EINVAL, "multiple of the page size", id="start not aligned"),
    pytest.param({"vec": 0, "vec_len": 8}, errno.EINVAL, "vec is NULL", id="NULL vec"),
    pytest.param({"vec": KERNEL_HALF, "vec_len": 8}, errno.EFAULT, "vec cannot be written", id="vec beyond"),
    # Present, not written: on some kernels nothing unregistered is written, and then nothing is copied out.
    pytest.param(
        {"vec": PAGE_SIZE, "vec_len": 1 << 58, "category_mask": Category.PRESENT},
        errno.EFAULT,
        "vec cannot be",
        id="vec_len beyond",
    ),
    pytest.param({"stop": -1}, errno.EFAULT, "start is above end", id="start above end"),
    pytest.param({"stop": KERNEL_HALF}, errno.EFAULT, "above user space", id="end in the kernel's half"),
    pytest.param({"flags": ScanFlags.CHECK_WPASYNC}, errno.EPERM, "not registered", id="get, not registered"),
    pytest.param({"flags": 3}, errno.EPERM, "already protected again", id="take, not registered"),
]


@pytest.mark.parametrize("call", [scan, scan_all])
@pytest.mark.parametrize(("fields", "number", "message"), REFUSALS)
def test_refused_fields(lab: Lab, call: Any, fields: dict[str, int], number: int, message: str) -> None:
    """Each field that the kernel refuses is named, with the range; scan_all refuses the same."""
    area = lab.map(4)
    area.write()
    fields = dict(fields)
    start = area.address + fields.pop("shift", 0)
    stop = fields.pop("stop", area.stop)
    stop = area.address - PAGE_SIZE if stop < 0 else stop
    with pytest.raises(KernelError, match=message) as caught:
        call(start, stop, **{"category_mask": WRITTEN, "return_mask": WRITTEN} | fields)
    error = caught.value
    assert (error.errno, error.call, error.start, error.stop) == (number, "PAGEMAP_SCAN", start, stop)
    assert isinstance(error, PermissionError) == (number == errno.EPERM)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("category", [Category.SOFT_DIRTY, Category.GUARD, Category.ACCESSED])
def test_a_category_of_a_later_kernel(lab: Lab, category: Category) -> None:
    """A category that only later kernels know is an UnsupportedError that says which kernel does."""
    area = lab.map(1)
    try:
        assert area.get(category, returned=category).walk_end == area.stop
    except UnsupportedError as refusal:
        error = refusal
    else:
        return
    assert (error.errno, error.call) == (errno.EINVAL, "PAGEMAP_SCAN")
    assert f"{category.name} needs Linux {category.since}." in error.remedy


class Flags(ScanBit):
    OLD = 1 << 0, FIRST, "As old as the call."
    NEW = 1 << 5, "99.1", "Of a kernel to come."


class Categories(ScanBit):
    OLD = 1 << 0, FIRST, "As old as the call."
    NEW = 1 << 6, "99.2", "Of a kernel to come."


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("asked", "kind", "remedy"),
    [
        ({"flags": Flags.NEW}, UnsupportedError, "asked for: NEW needs Linux 99.1. Leave"),
        ({"return_mask": Categories.NEW}, UnsupportedError, "asked for: NEW needs Linux 99.2. Leave"),
        (
            {"flags": Flags.NEW | Flags.OLD, "category_mask": Categories.NEW},
            UnsupportedError,
            "asked for: NEW needs Linux 99.1, NEW needs Linux 99.2. Leave",
        ),
        ({"flags": Flags.NEW, "category_mask": 1 << 7}, KernelError, "The masks have the unknown bits 0x80"),
        ({"category_mask": Categories.OLD}, KernelError, ""),
    ],
)
def test_a_flag_is_known_where_it_is_defined(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, int], kind: type[KernelError], remedy: str
) -> None:
    """A refusal names the kernel that a flag of a later one needs; nothing but its definition says which."""
    monkeypatch.setattr(_refusals, "ScanFlags", Flags)
    monkeypatch.setattr(_refusals, "Category", Categories)
    error = _refusals.scan_refusal(errno.EINVAL, ScanArg(**asked))
    assert type(error) is kind
    assert remedy in error.remedy
    assert bool(error.remedy) == bool(remedy)


@pytest.mark.anywhere
def test_a_flag_says_what_it_means_and_since_when() -> None:
    """Its docstring follows from its definition; combinations and bits of later kernels work as ever."""
    assert Categories.NEW.__doc__ == "Of a kernel to come. Linux 99.2."
    assert all(flag.__doc__ == f"{flag.meaning} Linux {flag.since}." for flag in (*ScanFlags, *Category))
    with pytest.raises(TypeError, match="say which Linux brought it"):

        class Undated(ScanBit):
            NEW = 1 << 5

    later = Category(1 << 40 | Category.GUARD)
    assert pickle.loads(pickle.dumps(later)) == later == 1 << 40 | 1 << 8


@pytest.mark.anywhere
def test_the_argument_has_the_fields_of_the_kernels() -> None:
    """In the same order, so that cffi and struct read the same from it."""
    assert [name for name, _ in ffi.typeof("struct dt_pm_scan_arg").fields] == list(ScanArg._fields)
    arg = ScanArg(*range(2, 26, 2))
    memory = bytearray(SCAN_ARG_SIZE)
    arg.write(memory)
    assert bytes(ffi.buffer(ffi.new("struct dt_pm_scan_arg *", arg))) == memory
    assert ScanArg.read(memory) == arg


INJECTED = [
    pytest.param(errno.ENOTTY, UnsupportedError, r"Linux 6\.7", id="no such ioctl"),
    pytest.param(errno.ENOMEM, KernelError, "out of memory", id="out of memory"),
    pytest.param(errno.EINTR, KernelError, "being killed", id="interrupted"),
    pytest.param(errno.ESRCH, KernelError, "has exited", id="the other process is gone"),
    pytest.param(errno.EPERM, PermissionError, "not registered", id="not permitted"),
    pytest.param(errno.EOWNERDEAD, KernelError, None, id="unforeseen"),
]


@pytest.mark.parametrize(("number", "kind", "message"), INJECTED)
def test_refusals_that_cannot_be_provoked(number: int, kind: type[Exception], message: str | None) -> None:
    """What a test can't bring about is injected, and arrives with errno, call, range and remedy."""

    def child() -> KernelError:
        seccomp.install(seccomp.refuse_ioctl(seccomp.PAGEMAP_SCAN, number))
        with pytest.raises(kind, match=message) as caught:
            scan(PAGE_SIZE, 3 * PAGE_SIZE, category_mask=WRITTEN)
        assert isinstance(caught.value, KernelError)
        return caught.value

    error = in_child(child).check()
    assert (error.errno, error.call) == (number, "PAGEMAP_SCAN")
    assert (error.start, error.stop) == (PAGE_SIZE, 3 * PAGE_SIZE)
    assert bool(error.remedy) == bool(message)


FIELDS = (
    "flags",
    "category_mask",
    "category_inverted",
    "category_anyof_mask",
    "return_mask",
    "vec_len",
    "max_pages",
    "size",
)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        pytest.param(-1, ValueError, "does not fit", id="negative"),
        pytest.param(1 << 64, ValueError, "does not fit|smaller vec_len", id="too large"),
        pytest.param(1.5, TypeError, "integer", id="float"),
        pytest.param("1", TypeError, "integer", id="string"),
    ],
)
def test_values_that_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, field: str, value: Any, kind: type[Exception], message: str
) -> None:
    """A value that is no 64-bit number never reaches the kernel; too much room is refused by mmap."""
    monkeypatch.setattr(pagemap, "lib", SimpleNamespace(dt_address_space=lib.dt_address_space))
    if field == "vec_len" and value == 1 << 64:
        kind = KernelError
    with pytest.raises(kind, match=message):
        scan(0, PAGE_SIZE, **{field: value})


@pytest.mark.parametrize(
    ("start", "end", "kind"),
    [(-1, 0, ValueError), (0, 1 << 64, ValueError), (0.0, 1, TypeError), (0, None, TypeError)],
)
def test_addresses_that_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, start: Any, end: Any, kind: type[Exception]
) -> None:
    """An address that is no 64-bit number never reaches the kernel."""
    monkeypatch.setattr(pagemap, "lib", SimpleNamespace(dt_address_space=lib.dt_address_space))
    with pytest.raises(kind, match=r"must be an integer|does not fit the field"):
        scan(start, end)


VECTORS = [
    pytest.param(bytes(24), None, TypeError, "writable", id="read-only"),
    pytest.param(memoryview(bytearray(48))[::2], None, TypeError, "contiguous", id="not contiguous"),
    pytest.param(bytearray(47), 2, ValueError, "holds 1 regions", id="too small"),
    pytest.param(PAGE_SIZE, None, ValueError, "say with vec_len", id="address without a size"),
    pytest.param("vec", None, TypeError, "bytes-like", id="no buffer"),
]


@pytest.mark.parametrize(("vec", "room", "kind", "message"), VECTORS)
def test_vectors_that_do_not_do(
    monkeypatch: pytest.MonkeyPatch, vec: Any, room: int | None, kind: type[Exception], message: str
) -> None:
    """A vec that could not take the results never reaches the kernel."""
    monkeypatch.setattr(pagemap, "lib", SimpleNamespace(dt_address_space=lib.dt_address_space))
    with pytest.raises(kind, match=message):
        scan(0, PAGE_SIZE, vec=vec, vec_len=room)


def test_without_proc(tmp_path: Path) -> None:
    """A process that can't open its own pagemap hears which file, and why."""
    require_root("to change the root directory")

    def child() -> KernelError:
        os.chroot(tmp_path)
        with pytest.raises(KernelError, match=r"open /proc/self/pagemap: .*not mounted") as caught:
            scan(0, PAGE_SIZE, category_mask=WRITTEN)
        return caught.value

    assert in_child(child).check().errno == errno.ENOENT
