"""Handles: objects that are of no use without this process."""

from __future__ import annotations

from typing import NoReturn


class Handle:
    """An object that stands for state of this process. It can be neither copied nor pickled."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} objects stand for memory of this process: they can't be copied or "
            "pickled. Page sets can be pickled"
        )
