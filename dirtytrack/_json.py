"""JSON of strangers: what it takes as objects is bounded before any of them is made."""

from __future__ import annotations

import json
from typing import Any

from dirtytrack._text import size

# Bytes of memory for each of these signs, at most, of what it begins or parts: wherever it stands, also in a
# string, where it begins nothing. An empty list of three bytes takes 64.
_BYTES = {b"[": 100, b"{": 160, b",": 40, b":": 200, b'"': 32}
_PLAIN, _WIDE = 2, 8  # bytes for each byte of the text: as text and in strings


def parse(data: bytes, most: int, **hooks: Any) -> Any:
    """Decodes JSON in UTF-8 by `json.loads`.

    Args:
        data: the text.
        most: bytes of memory that it may take.
        hooks: keywords of `json.loads`.

    Raises:
        ValueError: it may take more, or it is no JSON.
        RecursionError: it is nested too deep.
    """
    check(data, most)
    return json.loads(data.decode(), **hooks)


def check(data: bytes, most: int) -> None:
    """Refuses what `parse` refuses for the memory that it takes.

    Raises:
        ValueError: it takes more.
    """
    taken = footprint(data)
    if taken > most:
        raise ValueError(
            f"as objects its JSON may take {size(taken)} of memory, and at most {size(most)} are read"
        )


def footprint(data: bytes) -> int:
    """Bytes of memory that JSON takes as objects, and while they are made, at most."""
    is_plain = data.isascii() and b"\\u" not in data
    signs = sum(cost * data.count(sign) for sign, cost in _BYTES.items())
    return signs + len(data) * (_PLAIN if is_plain else _WIDE)
