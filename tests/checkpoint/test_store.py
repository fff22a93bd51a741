"""What every store of a chain's files does, in a directory or in memory."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import threading

import pytest

from _lib.checkpoint.packed import Packed
from _lib.checkpoint.places import KINDS
from dirtytrack import BusyError
from dirtytrack._lifetime.undo import Undo
from dirtytrack.checkpoint.store import open_store
from dirtytrack.checkpoint.store.directory import Directory
from dirtytrack.checkpoint.store.memory import MemoryStore
from dirtytrack.checkpoint.store.protocol import Condition, Store, UnreadableError
from dirtytrack.native import ffi, lib

pytestmark = pytest.mark.anywhere

NAME, OTHER = "0000000003-0000000000000000.delta", "0000000004-0000000000000000.delta"


@pytest.fixture(params=KINDS)
def store(request, tmp_path):
    opened = Directory(tmp_path / "chain", create=True) if request.param == "directory" else MemoryStore()
    yield opened
    opened.close()


def _publish(store, name, data):
    file = store.create()
    file.write(0, [data])
    file.publish(name)


def _read(file, start, stop):
    data = bytearray(stop - start)
    file.read_into(start, [memoryview(data)])
    return bytes(data)


def test_it_is_one(store):
    """It has all of the protocol."""
    assert isinstance(store, Store)
    assert store.locate(NAME).startswith(store.place)
    assert store.locate(NAME).endswith(NAME)


def test_a_file_appears_whole(store):
    """Until it is published it has no name, whatever the order in which it was written."""
    file = store.create()
    assert file.write(2, [b"cd", memoryview(b"ef"), b""]) == 6
    assert file.write(0, [bytearray(b"ab")]) == 2
    assert store.names() == []
    assert [usage.is_unfinished for usage in store.usage()] == [True]
    with pytest.raises(FileNotFoundError) as caught:
        store.open(NAME)
    assert caught.value.filename == store.locate(NAME)
    file.publish(NAME)
    assert store.names() == [NAME]
    opened = store.open(NAME)
    assert (opened.nbytes, _read(opened, 0, 6)) == (6, b"abcdef")
    opened.close()


def test_what_is_not_written_is_zeros(store):
    """Between two writes; and a hole may be skipped, what was written never."""
    file = store.create()
    file.write(1 << 20, [b"\1"])
    file.publish(NAME)
    opened = store.open(NAME)
    assert _read(opened, 0, 1 << 20) == bytes(1 << 20)
    assert 0 <= opened.skip_hole(0, 1 << 21) <= 1 << 20
    assert opened.skip_hole(1 << 20, 1 << 21) == 1 << 20
    assert opened.skip_hole(0, 10) in (0, 10)
    opened.close()


def test_reads_fill_many_buffers(store):
    """From any offset, into memory of any sizes."""
    data = bytes(range(256)) * 20
    _publish(store, NAME, data)
    opened = store.open(NAME)
    target = bytearray(3000)
    whole = memoryview(target)
    pieces = [whole[:1], whole[1:1], *(whole[at : at + 1] for at in range(1, 2000)), whole[2000:]]
    opened.read_into(77, pieces)
    assert target == data[77:3077]
    opened.close()


def test_a_read_beyond_the_end_is_the_files_fault(store):
    """It is not as long as it was said to be."""
    _publish(store, NAME, b"abc")
    opened = store.open(NAME)
    for start, stop in ((0, 4), (3, 4), (100, 101)):
        with pytest.raises(UnreadableError, match="length has changed"):
            _read(opened, start, stop)
    opened.close()


def test_nothing_is_replaced(store):
    """A name that is taken is an error, and the file that has it stays."""
    _publish(store, NAME, b"first")
    second = store.create()
    second.write(0, [b"second"])
    with pytest.raises(FileExistsError) as caught:
        second.publish(NAME)
    assert caught.value.filename == store.locate(NAME)
    second.discard()
    opened = store.open(NAME)
    assert _read(opened, 0, 5) == b"first"
    opened.close()
    assert len(store.usage()) == 1


def test_what_is_discarded_is_gone(store):
    """Before it was published; after that it stays."""
    kept, gone = store.create(), store.create()
    for file in (kept, gone):
        file.write(0, [b"abc"])
    kept.publish(NAME)
    for file in (kept, gone, gone):
        file.discard()
    assert [usage.name for usage in store.usage()] == store.names() == [NAME]


def test_removed_files_stay_open(store):
    """And what is not there any more is no error."""
    for name in (NAME, OTHER):
        _publish(store, name, name.encode())
    opened = store.open(NAME)
    store.remove([NAME, "nothing"])
    store.remove([NAME])
    store.remove([])
    assert store.names() == [OTHER]
    assert _read(opened, 0, len(NAME)) == NAME.encode()
    opened.close()
    opened.close()


def test_a_file_outlives_what_it_was_opened_by(store):
    """Closing the store closes none of its files."""
    _publish(store, NAME, b"abc")
    opened = store.open(NAME)
    store.close()
    store.close()
    del store
    gc.collect()
    assert _read(opened, 0, 3) == b"abc"
    opened.close()


def test_batches_are_packed_and_written(store):
    """Each block where the pack has its place, by whatever way the store has."""
    file, packed = store.create(), Packed(None, [4096, 9 * 4096], [0, 65536])
    packed.native.end = 16
    file.write_batch(packed.native, packed.batch([(0, 0, b"a" * 4096), (1, 3, b"b" * 8192)], everything=True))
    file.write_batch(packed.native, packed.batch([(1, 1, b"c" * 4096)]))
    file.publish(NAME)
    opened = store.open(NAME)
    assert _read(opened, 16, 16 + 8192) == b"a" * 4096 + b"c" * 4096
    assert _read(opened, 65536, opened.nbytes) == bytes(3 * 4096) + b"b" * 8192
    opened.close()


@pytest.mark.parametrize("holds", [True, False])
def test_a_condition_is_checked_before_a_file_has_its_name(store, holds):
    """The claim, and the files that have to be there; if not, whoever knows what to do is asked."""
    _publish(store, NAME, b"abc")
    claim, asked = store.claim(), []
    file = store.create()
    file.write(0, [b"def"])
    names = [NAME] if holds else [NAME, "0000000009-0000000000000000.delta"]
    file.publish(OTHER, condition=Condition(claim, names, lambda: asked.append(OTHER in store.names())))
    assert asked == ([] if holds else [False])
    assert set(store.names()) >= {NAME, OTHER}
    claim.close()


def test_a_condition_that_does_not_hold_leaves_no_file(store):
    """What it raises is told."""
    claim, file = store.claim(), store.create()
    file.write(0, [b"def"])
    with pytest.raises(ZeroDivisionError):
        file.publish(NAME, condition=Condition(claim, [OTHER], lambda: 1 // 0))
    file.discard()
    claim.close()
    assert NAME not in store.names()


def _ending():
    """Four blocks, of which a file has one, and what it has to hold in the end."""
    packed = Packed(None, [4096, 9 * 4096])
    file_has = packed.batch([(0, 0, b"a" * 4096)])
    kept = packed._runs, packed.data
    more = packed.batch([(1, 1, b"b" * 8192)])
    packed.kept = kept
    return (
        packed,
        file_has,
        packed.ending(more, description=b"[.]", header=b"H" * 128, count_at=1, count_bytes=1),
    )


def _check_ending(store, packed, name=NAME):
    opened = store.open(name)
    data = _read(opened, 0, opened.nbytes)
    assert data[:128] == b"H" * 128
    assert data[128 : 128 + 12288] == b"a" * 4096 + b"b" * 8192
    assert data[128 + 12288 :] == packed.end(description=b"[3]", header=b"H" * 128)
    opened.close()


def test_an_ending_is_written_before_the_name(store):
    """Batches, what says what they are, and the first bytes once more."""
    packed, first, ending = _ending()
    file = store.create(NAME, b"H" * 128)
    file.write_batch(packed.native, first)
    file.publish(NAME, ending)
    _check_ending(store, packed)


@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("done", [True, False])
def test_an_ending_can_be_prepared(store, done, holds):
    """Native code makes all of it, the name too, where it can; who publishes it then makes what is left."""
    _publish(store, NAME, b"abc")
    packed, first, ending = _ending()
    claim, asked = store.claim(), []
    names = [NAME] if holds else ["0000000009-0000000000000000.delta"]
    condition = Condition(claim, names, lambda: asked.append(OTHER in store.names()))
    file = store.create(OTHER, b"H" * 128)
    file.write_batch(packed.native, first)
    revoked = ffi.new("bool *")
    errand = file.prepare(OTHER, ending, condition, revoked)
    if errand and done:
        assert (lib.dt_errand_run(errand) == 0) == holds == (OTHER in store.names())
    file.publish(OTHER, ending, condition, [NAME])
    assert asked == ([] if holds else [False])
    _check_ending(store, packed, OTHER)
    claim.close()


def test_what_was_prepared_can_be_revoked(store):
    """Then it is never done."""
    packed, first, ending = _ending()
    claim = store.claim()
    file = store.create(NAME, b"H" * 128)
    file.write_batch(packed.native, first)
    revoked = ffi.new("bool *")
    errand = file.prepare(NAME, ending, Condition(claim, [], lambda: None), revoked)
    revoked[0] = True
    if errand:
        assert lib.dt_errand_run(errand) == -errno.ECANCELED
        with pytest.raises(OSError, match=os.strerror(errno.ECANCELED)):
            file.publish(NAME, ending, Condition(claim, [], lambda: None))
    file.discard()
    claim.close()
    assert NAME not in store.names()


def test_mappings_are_private(store):
    """Where the store has any; they outlive the file, and what is written to one stays in memory."""
    data = b"".join(bytes([at]) * mmap.PAGESIZE for at in range(4))
    _publish(store, NAME, data)
    opened = store.open(NAME)
    if not store.maps:
        with pytest.raises(OSError, match="can't be mapped"):
            opened.map(0, len(data))
        return
    mapping = opened.map(mmap.PAGESIZE, 2 * mmap.PAGESIZE)
    opened.close()
    before = len(os.listdir("/proc/self/fd"))
    more = [store.open(NAME).map(0, len(data)) for _ in range(10)]
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before  # a mapping takes no descriptor
    assert {bytes(one) for one in more} == {data}
    assert mapping[:] == data[mmap.PAGESIZE : 3 * mmap.PAGESIZE]
    mapping[:3] = b"abc"
    again = store.open(NAME)
    assert _read(again, 0, len(data)) == data
    again.close()


def test_one_writer_at_a_time(store):
    """Whoever has the claim; it can be given back twice, and is free then."""
    claim = store.claim()
    with pytest.raises(BusyError, match="This process"):
        store.claim()
    claim.renew()
    claim.close()
    claim.close()
    store.claim().close()
    del claim
    gc.collect()
    claim = store.claim()
    del claim  # nobody can give it back any more
    gc.collect()
    store.claim().close()


def test_one_writer_among_threads(store):
    """Of many that try at once one has it."""
    start, got = threading.Barrier(8, timeout=30), []

    def attempt():
        start.wait()
        try:
            got.append(store.claim())
        except BusyError:
            got.append(None)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([claim for claim in got if claim]) == 1


def test_a_claim_removes_what_the_dead_have_left(store):
    """Files without a name, and no others."""
    _publish(store, NAME, b"abc")
    left = store.create()
    left.write(0, [b"abc"])
    assert len(store.usage()) == 2
    claim = store.claim()
    assert {usage.name for usage in store.usage() if usage.is_unfinished} == set()
    assert NAME in store.names()
    claim.close()


def test_usage_is_what_files_take(store):
    """Of each at least its contents on the disk."""
    _publish(store, NAME, b"x" * 10_000)
    (usage,) = store.usage()
    assert (usage.name, usage.is_unfinished) == (NAME, False)
    assert usage.nbytes >= 10_000


@pytest.mark.parametrize("place", [7, None, b"bytes", object()])
def test_what_is_no_place(place):
    """Neither a path nor a store: TypeError."""
    with pytest.raises(TypeError):
        open_store(place, Undo())


def test_a_store_that_was_given_stays_its_owners(tmp_path):
    """It is closed by whom it was opened; a path by the undo."""
    undo, store = Undo(), Directory(tmp_path)
    assert open_store(store, undo) is store
    opened = open_store(str(tmp_path), undo)
    undo.close()
    assert store.names() == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        opened.names()
    store.close()
