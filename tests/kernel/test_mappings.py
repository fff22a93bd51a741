"""Mappings: kinds, page sizes, and the two ways of asking, told against each other."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from _lib import seccomp
from _lib.kernel.area import MAP_HUGETLB, PRIVATE, SHARED, Area, Lab, check, libc
from _lib.support import PAGE_SIZE, address_of, in_child, optional, require, require_root
from dirtytrack.errors import KernelError
from dirtytrack.kernel import mappings
from dirtytrack.kernel.mappings import Kind, Mapping, overlapping, page_size_at, writable

pytestmark = pytest.mark.anywhere

EVERYTHING = (0, 1 << 63)
PRIVATE_FILE, SHARED_FILE = mmap.MAP_PRIVATE, mmap.MAP_SHARED
PR_SET_VMA = 0x53564D41
IPC_PRIVATE, IPC_RMID, IPC_CREAT = 0, 0, 0o1000


def by_query(start: int, stop: int) -> list[Mapping]:
    """The answer of PROCMAP_QUERY alone."""
    fd = os.open("/proc/self/maps", os.O_RDONLY)
    try:
        return list(mappings._query(fd, start, stop))
    finally:
        os.close(fd)


def by_parsing(start: int, stop: int) -> list[Mapping]:
    """The answer of /proc/self/maps alone."""
    return list(mappings._parse(None, start, stop))


@pytest.fixture(params=["PROCMAP_QUERY", "/proc/self/maps"])
def ask(request: pytest.FixtureRequest) -> Callable[[int, int], list[Mapping]]:
    """Both ways of asking."""
    if request.param != "PROCMAP_QUERY":
        return by_parsing
    require_query()
    return by_query


def require_query() -> None:
    """Skip the test where there is one way only."""
    try:
        by_query(0, PAGE_SIZE)
    except mappings._NoQuery:
        require(False, "the kernel has no PROCMAP_QUERY (Linux 6.11)")


Ask = Callable[[int, int], list[Mapping]]


def test_both_ways_agree_on_everything(lab: Lab, tmp_path: Path, hugepages: Callable[[int], int]) -> None:
    """All mappings of this process, most kinds among them, are the same both ways, to the last field."""
    require_query()
    for flags in (PRIVATE, SHARED):
        lab.map(3, flags=flags)
    lab.map(hugepages(1) // PAGE_SIZE, flags=PRIVATE | MAP_HUGETLB)
    with open(tmp_path / "a name with\na new line,\ra return and blanks  ", "w+b") as file:
        file.truncate(8 * PAGE_SIZE)
        for flags in (PRIVATE_FILE, SHARED_FILE):
            lab.map(3, flags=flags, fd=file.fileno())
        os.unlink(file.name)
    difference = set(by_query(*EVERYTHING)) ^ set(by_parsing(*EVERYTHING))
    moving = {
        mapping for mapping in difference if mapping.kind is Kind.ANONYMOUS
    }  # the interpreter allocates
    assert difference == moving
    kinds = {mapping.kind for mapping in overlapping(*EVERYTHING)}
    assert kinds >= {
        Kind.ANONYMOUS,
        Kind.SHARED_ANONYMOUS,
        Kind.HUGETLB,
        Kind.PRIVATE_FILE,
        Kind.SHARED_FILE,
        Kind.SPECIAL,
    }


def test_mappings_come_whole_and_in_order(lab: Lab, ask: Ask) -> None:
    """A range gets every mapping that it touches, uncut, by address, and no other."""
    area = lab.map(6)
    area.part(2, 4).protect(mmap.PROT_READ)
    found = ask(area.at(1) + 5, area.at(2) + 1)
    assert [mapping.permissions for mapping in found] == ["rw-", "r--"]
    assert found[0].start <= area.at(0)
    assert (found[0].stop, found[1].start, found[1].stop) == (area.at(2), area.at(2), area.at(4))
    assert ask(area.at(2), area.at(4)) == found[1:]


def test_holes_are_left_out(lab: Lab, ask: Ask) -> None:
    """Where nothing is mapped there is no mapping, and no error."""
    area = lab.map(6)
    area.part(1, 5).unmap()
    assert ask(area.at(1), area.at(5)) == []
    first, last = ask(area.at(0), area.at(6))
    assert (first.stop, last.start) == (area.at(1), area.at(5))
    assert ask((1 << 56) - 1, 1 << 56) == []
    Area.map(4, at=area.at(1))  # for the fixture to unmap


def only(ask: Ask, area: Area) -> Mapping:
    (mapping,) = ask(area.at(0), area.at(1))
    return mapping


def test_private_anonymous_memory(lab: Lab, ask: Ask) -> None:
    """Anonymous memory has no file; forbidden memory is told by its permissions."""
    mapping = only(ask, lab.map(2, prot=0))
    assert (mapping.kind, mapping.shared, mapping.permissions) == (Kind.ANONYMOUS, False, "---")
    assert (mapping.device, mapping.inode, mapping.offset, mapping.name) == (0, 0, 0, "")
    assert mapping.page_size == PAGE_SIZE


def test_shared_anonymous_memory(lab: Lab, ask: Ask) -> None:
    """Shared anonymous memory is a kind of its own."""
    mapping = only(ask, lab.map(2, flags=SHARED))
    assert (mapping.kind, mapping.shared) == (Kind.SHARED_ANONYMOUS, True)


@pytest.mark.parametrize("flags", [PRIVATE_FILE, SHARED_FILE], ids=["private", "shared"])
def test_a_memfd(lab: Lab, ask: Ask, flags: int) -> None:
    """A memfd is shared memory; whether this mapping of it is shared is told apart."""
    fd = os.memfd_create("[anon_shmem: not")
    try:
        os.ftruncate(fd, 2 * PAGE_SIZE)
        mapping = only(ask, lab.map(2, flags=flags, fd=fd))
        assert (mapping.device, mapping.inode) == (os.fstat(fd).st_dev, os.fstat(fd).st_ino)
    finally:
        os.close(fd)
    assert (mapping.kind, mapping.shared) == (Kind.SHMEM, flags == SHARED_FILE)
    assert mapping.name == "/memfd:[anon_shmem: not (deleted)"


def filesystems() -> dict[str, str]:
    """The type of filesystem at each mount point."""
    return dict(line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines())


def test_a_file_on_tmpfs(lab: Lab, ask: Ask) -> None:
    """A file on a mounted tmpfs is shared memory."""
    shm = Path("/dev/shm")
    optional(filesystems().get("/dev/shm") == "tmpfs" and os.access(shm, os.W_OK), "no tmpfs at /dev/shm")
    path = shm / f"dirtytrack-test-{os.getpid()}"
    with open(path, "w+b") as file:
        os.unlink(path)
        file.truncate(2 * PAGE_SIZE)
        mapping = only(ask, lab.map(2, flags=SHARED_FILE, fd=file.fileno()))
    assert (mapping.kind, mapping.shared) == (Kind.SHMEM, True)


def system_v_segment(ask: Ask) -> tuple[int, Mapping]:
    """The id of a new System V segment, which is its inode's number as well, and its mapping."""
    identifier = check(libc.shmget(IPC_PRIVATE, 2 * PAGE_SIZE, IPC_CREAT | 0o600))
    try:
        area = Area(check(libc.shmat(identifier, None, 0)), 2)
    finally:
        check(libc.shmctl(identifier, IPC_RMID, None))
    try:
        return identifier, only(ask, area)
    finally:
        check(libc.shmdt(area.address))


def test_system_v_shared_memory(ask: Ask) -> None:
    """A System V segment is shared memory."""
    _, mapping = system_v_segment(ask)
    assert (mapping.kind, mapping.shared) == (Kind.SHMEM, True)


def test_the_first_system_v_segment(ask: Ask) -> None:
    """So is the first one of a namespace, the only file whose inode has the number 0."""
    require_root("to make a namespace")

    def child() -> tuple[int, Mapping]:
        check(libc.unshare(0x08000000))  # CLONE_NEWIPC
        return system_v_segment(ask)

    identifier, mapping = in_child(child).check()
    assert (identifier, mapping.inode) == (0, 0)
    assert (mapping.kind, mapping.shared) == (Kind.SHMEM, True)


@pytest.mark.parametrize(
    ("flags", "kind"), [(PRIVATE_FILE, Kind.PRIVATE_FILE), (SHARED_FILE, Kind.SHARED_FILE)]
)
def test_a_regular_file(lab: Lab, ask: Ask, tmp_path: Path, flags: int, kind: Kind) -> None:
    """A file is told by device, inode, offset and path."""
    path = tmp_path / "file"
    path.write_bytes(bytes(4 * PAGE_SIZE))
    mounts = filesystems()
    root = next(str(parent) for parent in path.parents if str(parent) in mounts)
    optional(mounts[root] != "tmpfs", "the temporary directory is on tmpfs")
    with open(path, "r+b") as file:
        mapping = only(ask, lab.map(4, flags=flags, fd=file.fileno()))
        middle = mmap.mmap(file.fileno(), PAGE_SIZE, flags=flags, offset=PAGE_SIZE)
    assert (mapping.kind, mapping.shared) == (kind, flags == SHARED_FILE)
    assert (mapping.inode, mapping.name, mapping.offset) == (path.stat().st_ino, str(path), 0)
    with middle:
        pieces = [found for found in ask(*EVERYTHING) if found.name == str(path) and found.offset]
        assert [piece.offset for piece in pieces] == [PAGE_SIZE]


@pytest.mark.parametrize("shared", [False, True], ids=["private", "shared"])
def test_hugetlb(lab: Lab, ask: Ask, hugepages: Callable[[int], int], shared: bool) -> None:
    """Huge pages of the pool are told by their page size."""
    size = hugepages(1)
    flags = (SHARED if shared else PRIVATE) | MAP_HUGETLB
    area = lab.map(size // PAGE_SIZE, flags=flags)
    mapping = only(ask, area)
    assert (mapping.kind, mapping.page_size, mapping.shared) == (Kind.HUGETLB, size, shared)
    assert page_size_at(area.address + 5) == size


def test_transparent_huge_pages_are_not_a_kind(lab: Lab, ask: Ask) -> None:
    """Memory under MADV_HUGEPAGE is ordinary memory with ordinary pages."""
    area = lab.map(1024)
    area.advise(mmap.MADV_HUGEPAGE)
    area.write()
    mapping = only(ask, area)
    assert (mapping.kind, mapping.page_size) == (Kind.ANONYMOUS, PAGE_SIZE)


def test_the_heap_the_stack_and_the_vdso(ask: Ask) -> None:
    """Heap and stack are the process's anonymous memory; what the kernel maps for itself is special."""
    named = {mapping.name: mapping.kind for mapping in ask(*EVERYTHING) if mapping.name.startswith("[")}
    assert (named["[heap]"], named["[stack]"]) == (Kind.ANONYMOUS, Kind.ANONYMOUS)
    assert (named["[vdso]"], named["[vvar]"]) == (Kind.SPECIAL, Kind.SPECIAL)
    assert "[vsyscall]" not in named


def test_devices(lab: Lab, ask: Ask) -> None:
    """A private mapping of /dev/zero is anonymous memory, a shared one is shared anonymous memory."""
    with open("/dev/zero", "r+b", buffering=0) as zero:
        private = lab.map(2, flags=PRIVATE_FILE, fd=zero.fileno())
        shared = lab.map(2, flags=SHARED_FILE, fd=zero.fileno())
    assert only(ask, private).kind is Kind.ANONYMOUS
    assert only(ask, shared).kind is Kind.SHARED_ANONYMOUS


def test_named_anonymous_memory(lab: Lab, ask: Ask) -> None:
    """A name given to anonymous memory does not change its kind."""
    private, shared = lab.map(2), lab.map(2, flags=SHARED)
    name = b"dirtytrack test\0"
    for area in (private, shared):
        place = ctypes.c_ulong(area.address), ctypes.c_ulong(2 * PAGE_SIZE)
        refused = libc.prctl(PR_SET_VMA, 0, *place, ctypes.c_char_p(name))
        optional(not refused, "the kernel names no anonymous memory (CONFIG_ANON_VMA_NAME)")
    assert only(ask, private).name == "[anon:dirtytrack test]"
    assert only(ask, private).kind is Kind.ANONYMOUS
    assert only(ask, shared).kind is Kind.SHARED_ANONYMOUS


def test_the_page_size_of_an_address(lab: Lab) -> None:
    """Any byte of a mapping will do; where nothing is mapped there is none, and the error says so."""
    area = lab.map(2)
    assert page_size_at(area.stop - 1) == PAGE_SIZE
    area.part(1, 2).unmap()
    with pytest.raises(KernelError, match="Nothing is mapped") as caught:
        page_size_at(area.at(1))
    assert (caught.value.errno, caught.value.start) == (errno.ENOENT, area.at(1))
    Area.map(1, at=area.at(1))  # for the fixture to unmap


@pytest.mark.parametrize(
    ("start", "stop", "kind"),
    [(-1, 5, ValueError), (5, 5, ValueError), (6, 5, ValueError), (0.5, 5, TypeError), (0, None, TypeError)],
)
def test_bad_ranges(start: int, stop: int, kind: type[Exception]) -> None:
    """What is no range of addresses is refused."""
    with pytest.raises(kind):
        overlapping(start, stop)


def test_without_the_query_maps_is_read(lab: Lab, hugepages: Callable[[int], int]) -> None:
    """On kernels before 6.11 the answer is the same, page sizes of huge pages included."""
    require_query()
    small, huge = lab.map(4), lab.map(hugepages(1) // PAGE_SIZE, flags=PRIVATE | MAP_HUGETLB)
    areas = [(area.address, area.stop) for area in (small, huge)]
    expected = [overlapping(*area) for area in areas]

    def child() -> list[list[Mapping]]:
        seccomp.install(seccomp.refuse_ioctl(seccomp.PROCMAP_QUERY, errno.ENOTTY))
        return [overlapping(*area) for area in areas]

    assert in_child(child).check() == expected


def test_another_process(lab: Lab) -> None:
    """The mappings of another process are told by its pid, and change without ours."""
    area = lab.map(4)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        area.part(1, 2).protect(0)
        os.write(writer, b"x")
        signal.pause()
    try:
        assert os.read(reader, 1) == b"x"
        assert [m.permissions for m in overlapping(area.at(1), area.at(2), pid=pid)] == ["---"]
        assert [m.permissions for m in overlapping(area.at(1), area.at(2))] == ["rw-"]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)


def test_no_descriptor_stays_open() -> None:
    """No answer, and no refusal, leaves a descriptor behind for a child to inherit."""
    before = os.listdir("/proc/self/fd")
    overlapping(*EVERYTHING)
    by_parsing(*EVERYTHING)
    with pytest.raises(KernelError):
        overlapping(0, PAGE_SIZE, pid=1 << 30)
    assert os.listdir("/proc/self/fd") == before


def test_a_process_that_dies_while_it_is_asked() -> None:
    """A refused query is a KernelError with the range."""

    def child() -> tuple[object, ...]:
        seccomp.install(seccomp.refuse_ioctl(seccomp.PROCMAP_QUERY, errno.ESRCH))
        with pytest.raises(KernelError, match="exited") as caught:
            overlapping(0, PAGE_SIZE)
        return caught.value.errno, caught.value.call, caught.value.start, caught.value.stop

    assert in_child(child).check() == (errno.ESRCH, "PROCMAP_QUERY", 0, PAGE_SIZE)


def test_writable_shared_memory(tmp_path: Path) -> None:
    """Files, shared memory and memfds, by their paths, where they are asked for; no devices."""
    with (tmp_path / "a file").open("w+b") as file, open(os.memfd_create("mine"), "w+b") as memfd:
        for one in (file, memfd):
            one.truncate(PAGE_SIZE)
        with (
            mmap.mmap(file.fileno(), PAGE_SIZE) as mapped,
            mmap.mmap(memfd.fileno(), PAGE_SIZE) as shared,
            mmap.mmap(-1, PAGE_SIZE) as anonymous,
            mmap.mmap(file.fileno(), PAGE_SIZE, mmap.MAP_PRIVATE),
            mmap.mmap(file.fileno(), PAGE_SIZE, prot=mmap.PROT_READ),
        ):
            asked = {one for stretch in writable(shared=True) for one in stretch.mappings}
            expected = {
                (start, start + PAGE_SIZE, name)
                for name, memory in (
                    (str(tmp_path / "a file"), mapped),
                    ("/memfd:mine (deleted)", shared),
                    ("/dev/zero (deleted)", anonymous),
                )
                for start in [address_of(memory)]
            }
            assert expected <= asked
            assert sum(name == str(tmp_path / "a file") for *_, name in asked) == 1
            assert not any(name.startswith("/") for one in writable() for *_, name in one.mappings)


def test_writable_anonymous_memory(lab: Lab, hugepages: Callable[[int], int]) -> None:
    """What `overlapping` says of it, of this process and another one; hugetlb is in no stretch."""
    with mmap.mmap(-1, hugepages(1), flags=PRIVATE | MAP_HUGETLB) as huge:
        start = address_of(huge)
        stretches = writable()
        found = {(start, stop) for stretch in stretches for start, stop, _ in stretch.mappings}
        expected = {
            (one.start, one.stop)
            for one in overlapping(*EVERYTHING)
            if one.kind is Kind.ANONYMOUS and "w" in one.permissions and not one.shared
        }
        assert len(found & expected) > 5
        assert len(found ^ expected) <= 4  # what this very test maps and unmaps
        assert all(stretch.stop <= start or start < stretch.start for stretch in stretches)
    assert stretches[-1].mappings[-1][2] == "[stack]"
    assert all(stretch.start == stretch.mappings[0][0] for stretch in stretches)
