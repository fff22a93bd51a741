"""What sessions, cursors, regions and epochs have in common: they are handles."""

from __future__ import annotations

from typing import NoReturn


class Handle:
    """Something that stands for state of this process: it can be neither copied nor pickled."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} stands for memory of this process: it can't be copied or pickled. "
            "Page sets can be pickled"
        )
