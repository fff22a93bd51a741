"""Buffers of pyarrow, by duck type; and its own where it is installed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from _lib.support import address_of, library
from dirtytrack.objects import describe


class Buffer(bytearray):
    """As a mutable buffer of pyarrow."""

    __module__ = "pyarrow.lib"
    address = 4096
    size = 40


def test_a_buffer_is_asked_for_its_place() -> None:
    """A resizable one may be given another, and another length."""
    buffer = Buffer(40)
    found = describe(buffer)
    assert (found.address, found.nbytes) == (address_of(buffer), 40)
    assert found.still_there()
    for attribute in ("address", "size"):
        before = getattr(buffer, attribute)
        setattr(buffer, attribute, before + 8)
        assert not found.still_there()
        setattr(buffer, attribute, before)
        assert found.still_there()


def test_what_has_no_buffer_of_its_own_is_refused() -> None:
    """With a word on what has."""
    array = type("Int64Array", (SimpleNamespace,), {"__module__": "pyarrow.lib"})()
    with pytest.raises(TypeError, match="buffers"):
        describe(array)


@pytest.mark.torch
def test_pyarrow_itself() -> None:
    """A resizable buffer, an immutable one, an array."""
    pyarrow = library("pyarrow")
    buffer = pyarrow.allocate_buffer(1000, resizable=True)
    found = describe(buffer)
    assert (found.address, found.nbytes) == (buffer.address, 1000)
    buffer.resize(1_000_000)
    assert not found.still_there()
    with pytest.raises(ValueError, match="read-only"):
        describe(pyarrow.py_buffer(b"abc"))
    with pytest.raises(TypeError, match="buffers"):
        describe(pyarrow.array([1, 2]))
