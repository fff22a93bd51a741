"""Descriptors for reading: how many are kept, which, and what makes room."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from _lib.support import in_child
from dirtytrack.checkpoint.store import descriptors
from dirtytrack.checkpoint.store.descriptors import Descriptor

pytestmark = pytest.mark.anywhere


def _open():
    return Descriptor("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def _is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _limited(soft, hard, act):
    # In a process that may have so many descriptors.
    def run():
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return act()

    return in_child(run).check()


def _own():
    return len(os.listdir("/proc/self/fd"))


def test_what_is_kept_is_found():
    """Until it is forgotten, which closes it."""
    key, descriptor = object(), _open()
    assert descriptors.find(key) is None
    descriptors.keep(key, descriptor)
    assert descriptors.find(key) is descriptor
    descriptors.forget(key)
    descriptors.forget(key)
    assert descriptors.find(key) is None
    assert descriptor.fd == -1


def test_one_that_nobody_refers_to_is_closed():
    """And one that somebody reads is not, although it was given up."""
    descriptor = _open()
    fd = descriptor.fd
    descriptor = None
    assert not _is_open(fd)


def test_half_of_the_limit_is_kept():
    """What was used last; the others are closed, but for those that somebody reads."""

    def act():
        keys, reader = [object() for _ in range(100)], None
        for at, key in enumerate(keys):
            descriptor = _open()
            descriptors.keep(key, descriptor)
            reader = reader or descriptor
            descriptors.find(keys[1])
            assert _own() < 60, at
        kept = [at for at, key in enumerate(keys) if descriptors.find(key)]
        return kept, _is_open(reader.fd)

    kept, reads = _limited(64, 64, act)
    assert kept == [1, *range(69, 100)]
    assert reads


def test_the_soft_limit_is_raised_before_anything_is_given_up():
    """To the hard one, when it is needed and not before."""

    def act():
        limits = []
        for _ in range(60):
            descriptors.keep(object(), _open())
            limits.append(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        return limits, len(descriptors._kept)

    limits, kept = _limited(64, 256, act)
    assert limits == [64] * 32 + [256] * 28
    assert kept == 60


def test_room_is_made_for_what_is_opened():
    """All that is kept is given up for it, when there is no other way; then the limit is named."""

    def act():
        for _ in range(20):
            descriptors.keep(object(), _open())
        others = []
        while len(descriptors._kept) == 20:
            others.append(descriptors.with_room(_open))
        kept = len(descriptors._kept)
        with pytest.raises(OSError, match="RLIMIT_NOFILE: raise it") as caught:
            while True:
                others.append(descriptors.with_room(_open))
        return kept, caught.value.errno

    assert _limited(64, 64, act) == (0, errno.EMFILE)


def test_other_errors_make_no_room():
    """And are what they are."""
    key = object()
    descriptors.keep(key, _open())
    with pytest.raises(FileNotFoundError):
        descriptors.with_room(lambda: os.open("/nowhere/at/all", os.O_RDONLY))
    assert descriptors.find(key)
    descriptors.forget(key)


@pytest.mark.parametrize("hard", [9, 12])
def test_a_few_are_kept_whatever_the_limit(hard):
    """So that reading one file does not open it for each piece."""

    def act():
        key = object()
        descriptors.keep(key, _open())
        return descriptors.find(key) is not None

    room = _own()
    assert _limited(room + hard, room + hard, act)
