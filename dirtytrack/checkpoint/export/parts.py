"""The arrays of an export, and their bytes in C order."""

from __future__ import annotations

import functools
import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from dirtytrack.checkpoint.format.layout import Layout
from dirtytrack.checkpoint.format.structures import FormatError
from dirtytrack.checkpoint.read.lineage import first_few_of
from dirtytrack.errors import ChainError
from dirtytrack.objects import title_of

if TYPE_CHECKING:
    import numpy as np

_PACKED = ":"  # begins the name of a region that dirtytrack itself makes
_PIECE = 1 << 22  # bytes read at a time


class Part(NamedTuple):
    """An array to be exported.

    Attributes:
        layout: its name and its elements.
        read: gives its bytes [start, stop), as memory has them.
        twin: the name of another one that is the same memory, and has no twin; None: there is none.
    """

    layout: Layout
    read: Callable[[int, int], bytes]
    twin: str | None = None

    @property
    def name(self) -> str:
        """Under which it is exported."""
        return self.layout.name

    @property
    def kind(self) -> str:
        """What messages call the type of its elements; that of a file may be anything."""
        try:
            return title_of(self.layout.dtype)
        except (LookupError, TypeError, AttributeError, RecursionError):
            return "of no known kind"

    def array(self, memory: Any) -> np.ndarray[Any, Any]:
        """An array of numpy on memory with its bytes.

        Raises:
            ChainError: there is none.
        """
        try:
            return self.layout.array(memory)
        except (FormatError, RecursionError) as error:
            raise ChainError(f"{error}. Chain.read() gives its bytes") from error


def parts_of(
    table: Sequence[Layout], names: Sequence[str] | None, place: str, read: Callable[[str, int, int], bytes]
) -> list[Part]:
    """Regions as parts: those of some names, or all.

    Args:
        table: of regions.
        names: of those wanted; None: all.
        place: of the chain, for messages.
        read: gives the bytes [start, stop) of a region.

    Raises:
        ChainError: there is no such region, or one is packed, and all are wanted.
    """
    by_name = {layout.name: layout for layout in table}
    packed = [name for name in by_name if name.startswith(_PACKED)]
    if names is None and packed:
        raise ChainError(
            f"region {packed[0]!r} of the chain in {place} is packed, and only what wrote it can unpack it: "
            "call export() of dirtytrack.torch, or name the regions to have"
        )
    parts: list[Part] = []
    first: dict[str, str] = {}  # by the region that has the memory
    for name in by_name if names is None else names:
        if name not in by_name:
            raise ChainError(f"the chain in {place} has no region {name!r}. It has {first_few_of(by_name)}")
        layout = by_name[name]
        owner = name if layout.same_as is None else table[layout.same_as].name
        twin = first.setdefault(owner, name)
        parts.append(Part(layout, functools.partial(read, name), None if twin == name else twin))
    return parts


class Pieces:
    """The bytes of parts, a few at a time.

    Attributes:
        parts: all of them.
    """

    def __init__(
        self, parts: Sequence[Part], scratch: Path, progress: Callable[[int, int], None] | None
    ) -> None:
        """Says of which, where files may be made, and who is told the bytes done and in all."""
        self.parts = parts
        self._scratch = scratch
        self._progress = progress
        self._done, self._total = 0, sum(part.layout.nbytes for part in parts)

    def like(self, part: Part) -> np.ndarray[Any, Any]:
        """An array of numpy that is like a part, but for the contents."""
        with self.memory(part.layout.nbytes) as (_, memory):
            return part.array(memory)

    def of(self, part: Part, *, little: bool = False) -> Iterator[bytes]:
        """The bytes of a part in C order; with *little* those of each element from the lowest on."""
        with self.memory(part.layout.nbytes) as (file, memory):
            array = part.array(memory)  # of nothing yet
            dtype = array.dtype.newbyteorder("<") if little else array.dtype
            if array.flags.c_contiguous and dtype == array.dtype:
                yield from self._read(part)
                return
            for piece in self._read(part):
                file.write(piece)
            file.flush()
            yield from _in_c_order(array, dtype)

    @contextmanager
    def memory(self, nbytes: int) -> Iterator[tuple[IO[bytes], Any]]:
        """A file of zeros that nobody else sees, and memory that is it. The system may write it out."""
        with TemporaryFile(dir=self._scratch) as file:
            file.truncate(nbytes)
            yield file, mmap.mmap(file.fileno(), nbytes, access=mmap.ACCESS_READ) if nbytes else bytearray()

    def _read(self, part: Part) -> Iterator[bytes]:
        nbytes = part.layout.nbytes
        for start in range(0, nbytes, _PIECE):
            stop = min(start + _PIECE, nbytes)
            yield part.read(start, stop)
            self._done += stop - start
            if self._progress is not None:
                self._progress(self._done, self._total)


def _in_c_order(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> Iterator[bytes]:
    import numpy as np

    with np.nditer(
        array,
        ["external_loop", "buffered", "zerosize_ok"],
        op_dtypes=[dtype],
        casting="equiv",
        order="C",
        buffersize=max(1, _PIECE // dtype.itemsize),
    ) as pieces:
        for piece in pieces:
            yield piece.tobytes()  # type: ignore[attr-defined]
