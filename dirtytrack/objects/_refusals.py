"""Why an object is not described, in the words that all kinds share."""

from __future__ import annotations

NOT_CONTIGUOUS = "not contiguous: track the array that owns the memory, or a contiguous copy"
READ_ONLY = "read-only: its pages are never written through it. Pass the writable original"
EMPTY = "empty: there is no byte to track"


def kind_of(memory: object) -> str:
    """Returns the type of an object, for a message."""
    kind = type(memory)
    return f"{'' if kind.__module__ == 'builtins' else kind.__module__ + '.'}{kind.__qualname__} object"


def refuse(condition: object, memory: object, reason: str) -> None:
    """Raises a ValueError that says what *memory* is, if the condition holds."""
    if condition:
        raise ValueError(f"{kind_of(memory)} is {reason}")


def refuse_python_objects(typecode: str | None, memory: object) -> None:
    """Raises a TypeError if elements of this type, in struct syntax, are pointers to Python objects."""
    if "O" in "".join((typecode or "").split(":")[::2]):  # what stands between colons is the name of a field
        raise TypeError(
            f"{kind_of(memory)} holds pointers to Python objects: their pages say nothing about the objects. "
            "Track arrays of plain numbers or bytes"
        )
