"""Memory that can't be touched: an error names the region, the range and the remedy; nothing is lost."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import threading
from pathlib import Path

import pytest

import dirtytrack
from _lib import seccomp
from _lib.support import PAGE_SIZE
from _lib.untouchable import (
    BAD,
    KINDS,
    PAGES,
    Guarded,
    Inaccessible,
    ReadOnly,
    Truncated,
    Unmapped,
    byte,
    can_be_read,
    contents,
    is_protected,
    write,
)
from dirtytrack.checkpoint import Chain, Checkpointer, load, restore
from dirtytrack.checkpoint.read.state import State
from dirtytrack.checkpoint.write import origin
from dirtytrack.checkpoint.write.committer import Committer
from dirtytrack.errors import KernelError, KernelPermissionError
from dirtytrack.kernel.touch import Memory

pytestmark = pytest.mark.forked

NBYTES = PAGES * PAGE_SIZE


def refused(memory, act, verb, *, permission=False):
    """Raises, and says where, and what to do."""
    with pytest.raises(KernelError, match=rf"^\[Errno \d+\] {verb} .*region 'arena' on \[") as caught:
        act()
    error = caught.value
    bad = memory.address + memory.bad * PAGE_SIZE
    last = memory.pages if isinstance(memory, Truncated) else memory.bad + 1
    assert error.start == bad
    assert bad < error.stop <= memory.address + last * PAGE_SIZE
    assert isinstance(error, KernelPermissionError) == permission
    assert re.search(
        "mprotect|MADV_GUARD_REMOVE|make it longer|map it again|touched at that time", error.remedy
    )
    if isinstance(memory, Truncated):
        assert "/memfd:truncated" in error.remedy
    return error


@pytest.fixture(params=["wp-async", "compare"])
def session(request):
    """A session on either backend."""
    with dirtytrack.Session(backend=request.param) as session:
        yield session


@pytest.fixture(params=KINDS)
def memory(request):
    """Memory to be spoiled."""
    return request.param()


@pytest.fixture(params=[*KINDS, Unmapped])
def target(request):
    """Memory to be written to, and spoiled."""
    return request.param()


def sees(session, memory):
    """Whether a save touches it: a session that compares leaves for later what it can't read."""
    return not can_be_read(memory) and session.backend == "wp-async"


def saves(checkpoints, memory, path):
    """The next save is committed, and has all that is in memory; so has the chain."""
    assert checkpoints.save(wait=True).state == "committed"
    copy = bytearray(NBYTES)
    restore(path, into={"arena": copy})
    assert copy == contents(memory)
    with Chain(path) as chain:
        assert chain.verify() == ()


@pytest.mark.parametrize("compression", ["none", "zstd", "auto"])
@pytest.mark.parametrize("staging", [None, 2 * PAGE_SIZE])
def test_saves(session, memory, tmp_path, compression, staging):
    """The first one and a later one; with little staging memory the page is copied by a later call."""
    chain = tmp_path / "chain"
    options = {"session": session, "compression": compression, "staging_bytes": staging}
    with Checkpointer(chain, {"arena": memory.given}, **options) as checkpoints:
        for value in (1, 2):
            for page in range(PAGES):
                write(memory, page, value)
            memory.spoil()
            if sees(session, memory):
                save = lambda: checkpoints.save(wait=True)  # noqa: E731
                error = refused(memory, save, "read", permission=is_protected(memory))
                assert "Nothing is lost" in error.remedy
                refused(memory, save, "read", permission=is_protected(memory))
            memory.mend()
            write(memory, BAD, value)
            saves(checkpoints, memory, chain)


def test_a_page_that_no_delta_has_to_touch(memory, tmp_path):
    """Nobody minds it."""
    with Checkpointer(tmp_path / "chain", {"arena": memory.given}) as checkpoints:
        checkpoints.save(wait=True)
        memory.spoil()
        checkpoints._pipeline.capturer._consumer.collect().settle()  # what spoils it may be a write
        write(memory, 2, 7)
        assert checkpoints.save(wait=True).blocks_written == 1
        memory.mend()


@pytest.mark.parametrize("kind", [Guarded, Inaccessible, Truncated])
def test_a_page_that_goes_between_the_scan_and_the_copy(kind, tmp_path, monkeypatch):
    """And between two pieces of the copy."""
    memory = kind(bad=PAGES - 1)
    take = Committer.take

    def spoil_and_take(self, job, capture, loan, is_last):
        memory.spoil()
        take(self, job, capture, loan, is_last)

    chain = tmp_path / "chain"
    with Checkpointer(chain, {"arena": memory.given}, staging_bytes=2 * PAGE_SIZE) as checkpoints:
        for value in (1, 2):
            for page in range(PAGES):
                write(memory, page, value)
            with monkeypatch.context() as patch:
                patch.setattr(Committer, "take", spoil_and_take)
                refused(memory, checkpoints.save, "read", permission=is_protected(memory))
            memory.mend()
            write(memory, PAGES - 1, value)
            saves(checkpoints, memory, chain)


def test_protection_that_flickers_beside_saves_and_restores(tmp_path):
    """Each call does its work, or raises."""
    memory, chain, rounds = Inaccessible(), tmp_path / "chain", 500
    for page in range(PAGES):
        write(memory, page, 1)
    is_over = threading.Event()

    def flicker():
        for _ in range(rounds):
            memory.spoil()
            memory.mend()
        is_over.set()

    with Checkpointer(chain, {"arena": memory.given}, fsync=False, compression="none") as checkpoints:
        checkpoints.save(wait=True)
        thread = threading.Thread(target=flicker)
        thread.start()
        while not is_over.is_set():
            for act in (checkpoints.save, lambda: restore(chain, into={"arena": memory.given})):
                try:
                    act()
                except KernelError as error:
                    assert "arena" in str(error)  # noqa: PT017
        thread.join()
        restore(chain, into={"arena": memory.given})
        saves(checkpoints, memory, chain)


# What a page is restored from.


def raw_base(checkpoints, source):
    source[:] = os.urandom(NBYTES)
    checkpoints.save(wait=True)


def delta(checkpoints, source):
    checkpoints.save(wait=True)
    source[:] = b"ab" * (NBYTES // 2)
    checkpoints.save(wait=True)


def base(checkpoints, source):
    source[:] = b"abcd" * (NBYTES // 4)
    checkpoints.save(wait=True)


def zeros(checkpoints, source):
    source[0] = 1
    checkpoints.save(wait=True)


def zeroed(checkpoints, source):
    base(checkpoints, source)
    source[:] = bytes(NBYTES)
    checkpoints.save(wait=True)


@pytest.fixture(params=[raw_base, base, delta, zeros, zeroed])
def states(request):
    """What is saved."""
    return request.param


@pytest.fixture(params=["none", "zstd"])
def chain(request, tmp_path, states):
    """A chain, and what it holds."""
    source = dirtytrack.alloc(NBYTES)
    with Checkpointer(tmp_path / "chain", {"arena": source}, compression=request.param) as checkpoints:
        states(checkpoints, source)
    return tmp_path / "chain", source[:]


def restored(path, target):
    restore(path, into={"arena": target.given})


def resumed(path, target):
    Checkpointer.resume(path, {"arena": target.given}).close()


def opened(path, target):
    Checkpointer.open(path, {"arena": target.given}).close()


def fill(target):
    for page in range(PAGES):
        write(target, page, 7)


@pytest.mark.parametrize("verb", [restored, resumed, opened])
def test_restores(chain, target, verb):
    """What is seen to be inaccessible is refused before anything is written."""
    path, expected = chain
    fill(target)
    target.spoil()
    if verb is not restored and isinstance(target, Unmapped):
        target.mend()  # such memory can't be tracked
    else:
        error = refused(target, lambda: verb(path, target), "write to|read", permission=is_protected(target))
        if isinstance(target, Truncated):
            assert "undefined" in error.remedy
        else:
            assert "Nothing was written" in error.remedy
            assert byte(target, 2) == 7
        target.mend()
    verb(path, target)
    assert contents(target) == expected


@pytest.mark.parametrize("verb", [restored, resumed])
def test_restores_of_memory_that_goes_after_the_check(chain, target, verb, monkeypatch):
    """What it holds then is undefined, and the next one puts it right."""
    path, expected = chain
    fill(target)
    check = Memory.check_writable

    def check_and_spoil(self, then):
        check(self, then)
        target.spoil()

    with monkeypatch.context() as patch:
        patch.setattr(Memory, "check_writable", check_and_spoil)
        error = refused(target, lambda: verb(path, target), "write to|read", permission=is_protected(target))
        assert "undefined" in error.remedy
    target.mend()
    verb(path, target)
    assert contents(target) == expected


def test_memory_that_goes_when_it_is_restored(chain, memory, monkeypatch):
    """Before it is hashed, for the deltas to come."""
    path, expected = chain
    fill(memory)
    learn = origin.learn

    def spoil_and_learn(regions, hashes):
        memory.spoil()
        return learn(regions, hashes)

    if can_be_read(memory):
        return
    with monkeypatch.context() as patch:
        patch.setattr(origin, "learn", spoil_and_learn)
        refused(memory, lambda: resumed(path, memory), "read", permission=is_protected(memory))
    memory.mend()
    resumed(path, memory)
    assert contents(memory) == expected


def test_a_file_that_is_cut_off_below_its_mapping(tmp_path, monkeypatch):
    """Loading lazily, where newer blocks are written over the base's."""
    path, source = tmp_path / "chain", dirtytrack.alloc(NBYTES)
    source[:] = os.urandom(NBYTES)
    with Checkpointer(path, {"arena": source}, compression="none") as checkpoints:
        checkpoints.save(wait=True)
        source[BAD * PAGE_SIZE] ^= 1
        checkpoints.save(wait=True)
    placing = State._placing
    (file,) = path.glob("*.base")

    def cut_and_place(self, *arguments, **keywords):
        os.truncate(file, PAGE_SIZE)
        return placing(self, *arguments, **keywords)

    monkeypatch.setattr(State, "_placing", cut_and_place)
    with pytest.raises(KernelError, match=f"write to .*region 'arena' on .*{re.escape(str(file))}"):
        load(path, lazy=True)


@pytest.mark.parametrize("kind", [Guarded, Inaccessible, Truncated])
def test_where_a_filter_forbids_the_calls(kind, tmp_path):
    """A pipe does it then, to the page."""
    memory, chain = kind(), tmp_path / "chain"
    fill(memory)
    with Checkpointer(chain, {"arena": memory.given}) as checkpoints:
        seccomp.install(
            seccomp.Refuse("process_vm_readv", errno.ENOSYS), seccomp.Refuse("process_vm_writev", errno.EPERM)
        )
        saves(checkpoints, memory, chain)
        fill(memory)
        memory.spoil()
        refused(memory, checkpoints.save, "read", permission=is_protected(memory))
        memory.mend()
        fill(memory)
        saves(checkpoints, memory, chain)
    memory.spoil()
    refused(memory, lambda: restored(chain, memory), "write to|read", permission=is_protected(memory))
    memory.mend()
    restored(chain, memory)
    assert byte(memory, BAD) == 7


def test_memory_that_is_shared_with_a_child_stays_shared(tmp_path):
    """A save reads it as anybody would, and takes no copies of its pages."""
    memory = dirtytrack.alloc(NBYTES)
    memory[:] = os.urandom(NBYTES)
    with Checkpointer(tmp_path / "chain", {"arena": memory}) as checkpoints:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        os.close(reader)
        before = _private(memory)
        checkpoints.save(wait=True)
        after = _private(memory)
        os.close(writer)
        os.waitpid(child, 0)
    assert (before, after) == (0, 0)


def _private(memory):
    # The bytes that no other process has.
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if bounds and int(bounds[1], 16) <= start < int(bounds[2], 16):
            found = dict(re.match(r"(\w+): +(\d+)", next(lines)).groups() for _ in range(14))
            return int(found["Private_Dirty"]) + int(found["Private_Clean"])
    raise AssertionError("not mapped")


def test_what_an_error_says_beside_read_only_memory(tmp_path):
    """It can be saved, and not be restored to."""
    memory, chain = ReadOnly(), tmp_path / "chain"
    memory.spoil()
    with Checkpointer(chain, {"arena": memory.given}) as checkpoints:
        saves(checkpoints, memory, chain)
    error = refused(memory, lambda: restored(chain, memory), "write to", permission=True)
    assert error.remedy == "It is protected there: make it writable (mprotect). Nothing was written"
