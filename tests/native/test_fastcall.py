"""The calls that do without cffi: bad arguments are exceptions, and no view of a buffer stays."""

from __future__ import annotations

import pytest

from dirtytrack.native import cards_look

_LONG = 1 << 70  # no number of C


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), TypeError),
        ((0, 0, 0, 0), TypeError),
        ((0, 0, 0, 0, bytearray(1), 0), TypeError),
        (("", 0, 0, 0, bytearray(1)), TypeError),
        ((0, "", 0, 0, bytearray(1)), TypeError),
        ((0, 0, -1, 0, bytearray(1)), OverflowError),
        ((0, 0, 0, _LONG, bytearray(1)), OverflowError),
        ((_LONG, 0, 0, 0, bytearray(1)), OverflowError),
        ((0, 0, 0, 0, 1), TypeError),
        ((0, 0, 0, 0, b"read-only"), BufferError),
        ((0, 0, 0, 0, memoryview(bytearray(8))[::2]), BufferError),
    ],
)
def test_bad_arguments(arguments: tuple[object, ...], error: type[Exception]) -> None:
    """Found before anything is looked at: there are no cards at address 0."""
    with pytest.raises(error):
        cards_look(*arguments)  # type: ignore[arg-type]
    for argument in arguments:
        if isinstance(argument, bytearray):
            argument.append(0)  # which would be refused while it is exported
