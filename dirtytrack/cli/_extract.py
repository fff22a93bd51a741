"""Regions of a checkpoint as files of their own."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from dirtytrack.checkpoint import Chain, Checkpoint, Layout
from dirtytrack.errors import ChainError
from dirtytrack.native import lib

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = {"npy": ".npy", "raw": ".bin"}

_PIECE = 1 << 22  # bytes read at a time
_LONGEST = 200  # characters of a file's name before the suffix; file systems take 255 with it
_DIGITS = 32


def file_name(region: str, suffix: str) -> str:
    """A name for a region's file, in its directory whatever the region is called, no other region's."""
    name = re.sub("^[-.~]", lambda match: f"%{ord(match[0]):02X}", quote(region, safe=""))
    if len(name) > _LONGEST:
        digest = hashlib.sha256(region.encode()).hexdigest()[:_DIGITS]
        name = f"{name[: _LONGEST - _DIGITS]}%~{digest}"  # "%~" is in no other name
    return name + suffix


class _Source(NamedTuple):
    chain: Chain
    checkpoint: Checkpoint
    layout: Layout


class Extraction:
    """Regions on their way into files, which get their names when all of them are complete.

    The files are for their owner only, as those of the chain are.
    """

    def __init__(self, into: Path, kind: str, replace: bool, progress: Callable[[int, int], None]) -> None:
        """Says where and how.

        Args:
            into: the directory, made if it is not there.
            kind: "npy" or "raw".
            replace: whether files that are there may be replaced.
            progress: is told the bytes of regions done, and in all.
        """
        self._into = into
        self._kind = kind
        self._replace = replace
        self._progress = progress
        self._done = self._total = 0

    def write(self, chain: Chain, checkpoint: Checkpoint, names: Sequence[str]) -> list[str]:
        """Writes regions of a checkpoint; returns the names of the files. It raises what `write_all` does."""
        return self.write_all([(chain, checkpoint, name) for name in names])

    def write_all(self, regions: Sequence[tuple[Chain, Checkpoint, str]]) -> list[str]:
        """Writes regions, each of a checkpoint of a chain that is open; returns the names of the files.

        Raises:
            FileExistsError: there is such a file, and it may not be replaced.
            ChainError: there is no such region, it can't be a file of this kind, or the chain is damaged.
            OSError: as the system says. Whatever is raised before the first file has its name, there is none.
        """
        sources = [_Source(chain, one, chain.region(name, at=one.id)) for chain, one, name in regions]
        files = [file_name(name, SUFFIXES[self._kind]) for _, _, name in regions]
        if not self._replace:
            for file in files:
                if os.path.lexists(self._into / file):
                    raise self._refusal(file, errno.EEXIST)
        self._done, self._total = 0, sum(source.layout.nbytes for source in sources)
        with suppress(FileExistsError):
            self._into.mkdir(parents=True)
        with (
            _opened(self._into) as directory,
            TemporaryDirectory(prefix=".restore-", dir=self._into) as scratch,
        ):
            for source, file in zip(sources, files, strict=True):
                self._write(source, Path(scratch, file))
            for file in files:
                self._publish(directory, Path(scratch, file))
            if error := lib.dt_sync_directory(directory):
                raise OSError(-error, os.strerror(-error), str(self._into))
        return files

    def _write(self, source: _Source, path: Path) -> None:
        write = self._write_npy if self._kind == "npy" else self._write_raw
        try:
            with open(path, "x+b", opener=_private) as file:
                write(source, file)
                file.flush()
                _sync(file.fileno())
        except OSError as error:
            raise self._refusal(path.name, error.errno or errno.EIO) from error

    def _write_raw(self, source: _Source, file: IO[bytes], start: int = 0) -> None:
        # From an offset of the file on. What is known to be zeros is left a hole.
        chain, name, nbytes, at = source.chain, source.layout.name, source.layout.nbytes, source.checkpoint.id
        file.truncate(start + nbytes)
        for offset in range(0, nbytes, _PIECE):
            stop = min(offset + _PIECE, nbytes)
            if not chain.is_zero(name, offset, stop, at=at):
                file.seek(start + offset)
                file.write(chain.read(name, offset, stop, at=at))
            self._done += stop - offset
            self._progress(self._done, self._total)

    def _write_npy(self, source: _Source, file: IO[bytes]) -> None:
        from numpy.lib import format as npy

        layout = source.layout
        if not layout.nbytes:
            npy.write_array(file, layout.array(bytearray()), allow_pickle=False)
            return
        file.truncate(layout.nbytes)
        array = _array(layout, file)  # of nothing yet: it knows what the header says
        if array.flags.forc:
            fortran = array.flags.fnc
            header = npy.open_memmap(file.name, "w+", array.dtype, array.shape, fortran_order=fortran)
            self._write_raw(source, file, header.offset)
        else:  # another order of axes, which such a file can't have
            with TemporaryFile(dir=self._into) as raw:
                self._write_raw(source, raw)
                raw.flush()
                npy.write_array(file, _array(layout, raw), allow_pickle=False)

    def _publish(self, directory: int, path: Path) -> None:
        if self._replace:
            path.replace(self._into / path.name)
            return
        here = f"{path.parent.name}/{path.name}"
        if error := lib.dt_rename_new(directory, here.encode(), path.name.encode()):
            raise self._refusal(path.name, -error)

    def _refusal(self, name: str, error: int) -> OSError:
        remedy = ": choose another directory, or --force" if error == errno.EEXIST else ""
        return OSError(error, os.strerror(error) + remedy, str(self._into / name))


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _sync(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if not lib.dt_not_offered(
            error.errno or 0
        ):  # where files can't be synced they are there all the same
            raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _array(layout: Layout, file: IO[bytes]) -> np.ndarray[Any, Any]:
    # On a file's bytes, which are not touched before the array's elements are.
    memory = mmap.mmap(file.fileno(), layout.nbytes, access=mmap.ACCESS_READ)
    from numpy.lib import format as npy

    try:
        array = layout.array(memory)
        npy.dtype_to_descr(
            array.dtype
        )  # there is none where fields overlap, or are not in the order of memory
        return array
    except (ValueError, RecursionError) as error:
        raise ChainError(f"{error}. Use --format raw") from error
