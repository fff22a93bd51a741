"""What a store of a chain's files can do, wherever it keeps them.

A store holds files by name. A file is complete under its name, or it is not there; once it has its name it
never changes. One writer at a time holds the claim to create and remove files; any number of readers list and
open them beside it. Nothing else of the package opens, lists, maps or measures a file of a chain.

Names are those of ``docs/format.md``, which the store neither knows nor checks. Errors are OSErrors with the
whole place of the file as their ``filename``; what is the fault of a single file is an `UnreadableError`.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from dirtytrack.checkpoint.store.packed import Ending
from dirtytrack.errors import BusyError

if TYPE_CHECKING:
    from typing_extensions import Buffer

Exchange = tuple[Sequence[str], str]  # the files that a state stands on, and the base that was made for it

GROUP_FOLDERS = ("records", "parts")  # beside no file of a chain, where a group of processes has saved
DCP_FOLDERS = ("states",)  # the same of a DcpWriter

# What somebody can do whose Checkpointer can't write any more, while memory is newer than the chain.
GO_ON = (
    "To keep what is in memory begin a chain in another directory, or at another URL; to go back to the last "
    "checkpoint, resume this one"
)


class UnreadableError(Exception):
    """A file can't be read, and that is its own fault. The message is the reason, without the file's name."""


class OvertakenError(BusyError):
    """Another writer has committed what this one was about to: it can't go on."""

    def told(self) -> BusyError:
        """The same for who called a method of a Checkpointer: once, and nothing else."""
        error = BusyError(self.errno or errno.EBUSY, self.call, remedy=self.remedy)
        error.__cause__ = self
        return error


class StoreRemovedError(FileNotFoundError):
    """The store itself is gone, and can't come back for whoever has it open."""


class FileRemovedError(FileNotFoundError):
    """A file that was opened before is gone, and the store could not keep it open for so long."""


class Usage(NamedTuple):
    """What a file takes.

    Attributes:
        name: of the file.
        nbytes: room on the disk, its holes aside.
        is_unfinished: whether a writer is at work on it, or died over it.
    """

    name: str
    nbytes: int
    is_unfinished: bool


class StoredFile(Protocol):
    """A file that has its name, open for reading. Methods may be called from any thread.

    It stays readable until it is closed, also when it is removed meanwhile; but of many files a store may
    keep only some open. Reading another one that was removed is a FileRemovedError.

    Attributes:
        nbytes: its length.
    """

    nbytes: int

    def expect(self, spans: Iterable[tuple[int, int]]) -> None:
        """These bytes, from starts to stops, are going to be read: what is far away is asked for."""

    def read_into(self, offset: int, buffers: Sequence[memoryview], checksum: Any = None) -> None:
        """Fills the buffers, one after the other, with the file's bytes from an offset on.

        They are added to *checksum*, a ``struct dt_checksum``, where one is given.

        Raises:
            UnreadableError: the file is shorter by now, or damaged. The buffers are undefined.
            FileRemovedError: see above.
            OSError: it could not be read, and that is not its fault.
        """

    def skip_hole(self, start: int, stop: int) -> int:
        """The first offset in [start, stop) that may hold anything but zeros; *stop* if there is none."""

    def map(self, offset: int, nbytes: int) -> mmap.mmap:
        """A private, writable mapping of some of it, where the store `maps`; it outlives `close`.

        Raises:
            UnreadableError: the file is shorter by now: who touched the mapping would be killed.
            OSError: it can't be mapped.
        """

    def close(self) -> None:
        """Gives up what it holds; idempotent."""


class NewFile(Protocol):
    """A file on its way: it has no name that a reader would see. For one thread at a time."""

    def write(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """Writes all of the buffers, one after the other, from an offset on; returns where they end.

        Offsets grow, and nothing is written twice; but the first bytes of the file come last, and where the
        store `maps` there may be holes, and writing into them later.

        Raises:
            OSError: it could not be written: `discard` it.
        """

    def write_segments(self, pack: Any, first: int, stop: int) -> None:
        """Writes segments, from *first* to *stop*, of a ``struct dt_pack`` that is ``apart``.

        Raises:
            MemoryError, OSError: they could not be written: `discard` it.
        """

    def write_batch(self, pack: Any, batch: Any) -> None:
        """Adds a ``struct dt_captured`` to a ``struct dt_pack``, and writes what that has to be written.

        Raises:
            MemoryError, OSError: it could not be written: `discard` it.
        """

    @property
    def is_fixed(self) -> bool:
        """Whether its name and its first bytes must be what `Store.create` was told, by now."""

    def prepare(self, name: str, ending: Ending, condition: Condition, revoked: Any) -> Any:
        """Prepares to `publish` it by the same arguments, which has to follow.

        *revoked* is a native flag: it is not to be done any more.

        Returns:
            A ``struct dt_errand``, what native code can do of that beforehand; NULL: nothing.
        """

    def publish(
        self,
        name: str,
        ending: Ending | None = None,
        condition: Condition | None = None,
        footing: Sequence[str] | None = (),
    ) -> None:
        """Gives the file its name, once and for all, if no other file has it.

        The *ending* is written before that. The *condition* is checked when its batches are written,
        before the rest is. *footing* is the files that its state stands on, a base first: it is the
        newest from here on. None: it is not, but another file for a state that is there; `Store.remove` says
        instead of which ones.

        Both last when this returns, unless the store was opened to do without.

        Raises:
            Others: as the condition.
            FileExistsError: another file has the name.
            MemoryError, OSError: it is not there, or `discard` will see to that.
        """

    def discard(self) -> None:
        """Removes what was not published, whatever its name by now; if that fails, the next claim does."""


class NativeClaim(NamedTuple):
    """A question to native code.

    Attributes:
        question: a ``struct dt_claim``.
        kept: what it refers to.
    """

    question: Any
    kept: object


class Condition(NamedTuple):
    """What has to hold when a file gets its name.

    Attributes:
        claim: is still held, ...
        names: ... and these files are there. If so, one look suffices.
        otherwise: is called if that can't be seen at once: it raises what is wrong, or mends it.
    """

    claim: Claim
    names: Collection[str]
    otherwise: Callable[[], object]

    def check(self) -> None:
        """Sees to it."""
        if not self.claim.holds(self.names):
            self.otherwise()


class Claim(Protocol):
    """The right to write to a store. It ends with its process."""

    def holds(self, names: Collection[str]) -> bool:
        """Whether nobody else has it or had it, and files of these names are there, if one call can tell.

        Else `renew`, which says what is wrong, and look for them.
        """

    def native(self, names: Collection[str]) -> NativeClaim | None:
        """The same as a question that native code asks, together with what it does then; None: it can't.

        It is for the sake of threads that compute, beside which each entry from Python costs 5 ms.
        """

    def renew(self) -> None:
        """Makes sure that nobody else has it, or has had it meanwhile; to be called before each commit.

        Raises:
            BusyError: somebody has, or may have without our knowledge.
            OSError: that can't be found out.
        """

    def close(self) -> None:
        """Gives it back; idempotent. In a forked child, which does not have it, it takes nothing away."""


@runtime_checkable
class Store(Protocol):
    """The files of one chain.

    Attributes:
        place: where it is, as a path or URL, for messages.
        maps: whether its files can be mapped. (If not, no base is laid out for that.)
    """

    @property
    def place(self) -> str:
        """See above."""

    @property
    def maps(self) -> bool:
        """See above."""

    def locate(self, name: str) -> str:
        """The whole place of a file, for messages."""

    def names(self) -> list[str]:
        """The names of all files that have one, in no order, foreign ones among them."""

    def newest_names(self) -> list[str] | None:
        """Enough of them for the newest state, with the greatest number; None if `names` is as quick."""

    def has_folders(self, names: Sequence[str]) -> bool:
        """Whether something else lies beside the files, in folders of these names."""

    def unreadable(self) -> list[tuple[str, str]]:
        """What is newer than the state that is read, and would be it but for damage: names, and reasons."""

    def usage(self) -> list[Usage]:
        """What all files take, those without a name of their own too."""

    def expect(self, names: Sequence[str]) -> None:
        """These files are going to be opened, in this order."""

    def open(self, name: str) -> StoredFile:
        """Opens a file for reading.

        Raises:
            FileNotFoundError: there is none; it may have been removed.
            UnreadableError: it is none, but a directory or such, or a symlink that may not be followed.
            OSError: it can't be opened, and that is not its fault.
        """

    def create(self, name: str = "", first: bytes = b"", most: int = 0) -> NewFile:
        """Begins a file; for who has the claim.

        Args:
            name: that it is going to have, most likely.
            first: the bytes that it is going to begin with, the same. They are to be written all the same.
            most: how many bytes it is going to have at most, about.
        """

    def remove(self, names: Sequence[str], instead: Sequence[Exchange] = ()) -> None:
        """Removes files in this order, for good as `NewFile.publish`; one that is not there is no error.

        *instead* is bases that have been made for states that are there: what stands on the files of one
        stands on its base from here on. The first that fits counts.

        For who has the claim.
        """

    def adopt(self, other: Store, names: Sequence[str]) -> None:
        """Has files of another store of this kind, too, without their bytes being read.

        They are a state, a base first, and that is the newest one from here on. For who has the claim, while
        there is no file.

        Raises:
            OSError: it can't be done here, or one is gone by now. Some are here, perhaps, and are no state.
        """

    def claim(self) -> Claim:
        """Takes the right to write, and removes what writers that died have left.

        Raises:
            BusyError: somebody has it; it says who.
            UnsupportedError: nobody can be kept out here; it says what to do.
            OSError: the store can't be written.
        """

    def close(self) -> None:
        """Gives up what it holds; idempotent. Files that it keeps open stay so."""
