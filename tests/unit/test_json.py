"""JSON of strangers: what is refused, and that nothing takes more memory than was reckoned."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from dirtytrack._json import check, footprint, parse

pytestmark = pytest.mark.anywhere

_MANY = 30_000


def _list_of(text: str) -> str:
    return f"[{','.join([text] * _MANY)}]"


@pytest.mark.parametrize(
    "text",
    [
        _list_of("[]"),
        _list_of("[1]"),
        _list_of("{}"),
        _list_of('{"a":1}'),
        _list_of('{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}'),
        _list_of("257"),
        _list_of("-9"),
        _list_of("1e9"),
        _list_of("9" * 30),
        _list_of('"ab"'),
        _list_of('"\\u0100"'),
        _list_of('"\\ud83d\\ude00aaa"'),
        _list_of('"\U0001f600"'),
        f'["{"a" * _MANY}\\ud83d\\ude00"]',
        f'["{"é" * _MANY}\U0001f600"]',
        f"{{{','.join(f'{json.dumps(str(key))}:0' for key in range(_MANY))}}}",
        f"[{','.join(f'{{{json.dumps(str(key))}:0}}' for key in range(_MANY))}]",
    ],
    ids=lambda text: text[:20],
)
def test_nothing_takes_more_than_was_reckoned(text: str) -> None:
    """Lists, keys, numbers and texts, each as many as there is room for."""
    data = text.encode()
    reckoned = footprint(data)
    for hooks in ({}, {"object_pairs_hook": dict}):
        tracemalloc.start()
        try:
            parse(data, reckoned, **hooks)
            taken = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert taken <= reckoned < 80 * len(data) + 1000


def test_what_is_too_much_is_refused() -> None:
    """Before any of it is made, by a byte."""
    data = _list_of("[]").encode()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"may take 4\.\d MiB of memory, and at most 4\.\d MiB are read"):
            parse(data, footprint(data) - 1)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()
    check(data, footprint(data))
    assert len(parse(data, footprint(data))) == _MANY


def test_what_is_no_json() -> None:
    """UTF-8 alone; and nesting beyond Python's own limit."""
    for data in (b"\xff", '"a"'.encode("utf-16"), b"[1", b"\xef\xbb\xbf1"):
        with pytest.raises(ValueError):
            parse(data, 1 << 20)
    with pytest.raises(RecursionError):
        parse(b"[" * 100_000, 1 << 30)
