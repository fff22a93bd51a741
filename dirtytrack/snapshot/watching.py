"""The two-line form: what did this change?"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from dirtytrack._html import escape
from dirtytrack.errors import DirtyTrackError
from dirtytrack.snapshot._changes import check_byte_count
from dirtytrack.snapshot.diff import Diff
from dirtytrack.snapshot.snapshot import Snapshot


class watch(Diff):
    """``with watch(array) as changes: ...``; after it *changes* is the `Diff`.

    Until the block is left, also by an exception, it has no contents, and says so. For memory that is watched
    over and over there is `Snapshot`.
    """

    __slots__ = ("_gap", "_is_left", "_memories", "_snapshot")

    def __init__(self, *memories: object, gap: int = 0) -> None:
        """Says what to watch. The diff is to the contents at the beginning of the block.

        Args:
            *memories: as for `Snapshot`, with the session of the regions, or `default_session`.
            gap: as for `Snapshot.diff`.

        Raises:
            TypeError, ValueError: the gap is no number of bytes.
        """
        self._gap = check_byte_count("gap", gap)
        self._is_left = False
        self._memories: tuple[object, ...] | None = memories
        self._snapshot: Snapshot | None = None

    def __enter__(self) -> Self:
        if self._memories is None:
            raise RuntimeError("this watch was entered already: make another one")
        self._snapshot = Snapshot(None, *self._memories)
        self._memories = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        snapshot, self._snapshot = self._snapshot, None
        assert snapshot is not None
        with snapshot:
            try:
                found = snapshot.diff(gap=self._gap)
            except DirtyTrackError:
                if error is None:
                    raise
                return  # what the block raised tells more
        self._fill(found._parts)
        self._is_left = True

    def __getattr__(self, name: str) -> object:
        if name in Diff.__slots__:
            raise RuntimeError("the changes are there when the block of the watch is left")
        raise AttributeError(name)

    def __repr__(self) -> str:
        return super().__repr__() if self._has_changes else "<dirtytrack.watch: not left yet>"

    def _repr_html_(self) -> str:
        return super()._repr_html_() if self._has_changes else escape(repr(self))

    @property
    def _has_changes(self) -> bool:
        return getattr(self, "_is_left", False)  # which it has not got where a repr of its making is taken
