"""What can be tracked, as type checkers know it: `describe` knows more, and says why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias


class SupportsArrayInterface(Protocol):
    """An array of whatever library."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Where its memory is, and what is there."""


class SupportsStorage(Protocol):
    """A torch tensor."""

    def untyped_storage(self) -> Any:
        """What holds its memory."""


if TYPE_CHECKING:
    from typing_extensions import Buffer  # which type checkers bring along

    Trackable: TypeAlias = Buffer | tuple[int, int] | SupportsArrayInterface | SupportsStorage
else:
    Trackable = object
