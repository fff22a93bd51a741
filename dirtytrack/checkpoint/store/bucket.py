"""A place for objects: what a store of a chain's files needs of it, with errors as all have them.

An object is there as a whole or not at all, and may be replaced as a whole. Errors are OSErrors with the
object's whole place as their ``filename``, and say what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Buffer

_T = TypeVar("_T")

MOST_WHOLE = 1 << 27  # bytes of an object that is read in one piece


class Found(NamedTuple):
    """An object in a listing.

    Attributes:
        key: its name.
        nbytes: its length.
        modified: when it was made, in seconds since 1970 by the clock of the store.
    """

    key: str
    nbytes: int
    modified: float


class Bucket(Protocol):
    """Objects by key. Methods may be called from any thread.

    Whatever raises an OSError that is not about what is there may have been done all the same.

    Attributes:
        place: its URL, for messages.
    """

    place: str

    def put_new(self, key: str, data: Buffer) -> bool:
        """Makes an object if there is none of that key, in one step of the service's; says whether it did.

        False is no proof that it was somebody else: the answer to an earlier attempt may have been lost.
        """

    def put(self, key: str, data: Buffer) -> None:
        """Makes an object, by one request."""

    def upload(self, key: str, pieces: Iterator[Buffer], part_bytes: int) -> None:
        """Makes an object of pieces, as they come, in parts of so many bytes; what fails leaves nothing."""

    def copy_from(self, other: Bucket, key: str) -> None:
        """Makes an object that another place of the service has under this key; its bytes don't come here.

        Raises:
            FileNotFoundError: there is none.
            OSError: it can't be done; of another service, for one.
        """

    def get(self, key: str) -> bytes:
        """All of an object.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it has more than `MOST_WHOLE` bytes.
        """

    def get_range(self, key: str, start: int, stop: int) -> Buffer:
        """The bytes [start, stop) of an object, or fewer where it ends.

        Raises:
            FileNotFoundError: there is none.
        """

    def size(self, key: str) -> int:
        """Its length.

        Raises:
            FileNotFoundError: there is none.
        """

    def first_page(self, prefix: str) -> list[Found]:
        """The first of the objects whose keys begin with that, in the order of the service.

        The prefix is that of a folder: nothing, or it ends with a slash.
        """

    def find(self, prefix: str) -> Iterator[Found]:
        """All of them."""

    def delete(self, keys: Sequence[str]) -> None:
        """Removes objects; one that is not there is no error."""


def check_whole(nbytes: int) -> None:
    """Refuses an object that is too large to be read in one piece.

    Raises:
        ValueError: it is.
    """
    if nbytes > MOST_WHOLE:
        raise ValueError(f"it has {nbytes} bytes, and at most {MOST_WHOLE} are read")


def retried(act: Callable[[], _T], times: int = 2) -> _T:
    """What *act* returns, tried so often: for what only reads.

    Raises:
        OSError: of the last try; a FileNotFoundError or PermissionError at once.
    """
    for left in reversed(range(times)):
        try:
            return act()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            if not left:
                raise
    raise AssertionError("unreachable")
