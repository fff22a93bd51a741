"""Reading a chain: what it holds, whether it is intact, and the contents of its regions at any checkpoint."""

from __future__ import annotations

import io
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from dirtytrack._lifetime.closable import Closable
from dirtytrack.checkpoint.format.layout import Layout
from dirtytrack.checkpoint.format.structures import FileName, FormatError
from dirtytrack.checkpoint.read.lineage import Checkpoint, Problem, arrange, few
from dirtytrack.checkpoint.read.opening import open_files
from dirtytrack.checkpoint.read.state import DamagedFile, State
from dirtytrack.errors import ChainError, ClosedError

__all__ = ["Chain", "Checkpoint", "Problem"]

_READ_BYTES = 1 << 20

_T = TypeVar("_T")


class Chain(Closable):
    """The checkpoints in a directory, for reading. A context manager, and a collection of `Checkpoint`.

    It opens all files when it is made, and knows no later ones; what a compaction removes meanwhile stays
    readable here. Everything but the stored contents is checked then; these when they are read, or all at
    once by `verify`. A file that turns out damaged is not used any more, nor is what stands on it: both are
    in `problems` from then on.

    It takes no lock and changes no file. It is for one thread at a time.
    """

    _closed = True  # until there is something to close

    def __init__(self, path: os.PathLike[str] | str) -> None:
        """Opens the chain in a directory.

        Args:
            path: the directory.

        Raises:
            FileNotFoundError: there is no such directory.
            NotADirectoryError: it is something else.
            PermissionError: it, or a file in it, may not be read.
            ChainError: it holds no checkpoint at all, or those of more than one history. (Where files are
                there and none is intact there is no error: the chain is empty then, but for `problems`.)
            OSError: with EMFILE if the chain has more files than this process may open. (Its soft limit,
                RLIMIT_NOFILE, is raised to the hard one where the chain needs it.)
        """
        self._path = Path(path)
        with ExitStack() as undo:
            self._files, self._damaged, self._gone = open_files(self._path, undo)
            self._arrange()
            self._check_history()
            self._undo = undo.pop_all()
        self._last: tuple[Checkpoint, State] | None = None
        self._closed = False

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    @property
    def id(self) -> str | None:
        """Identifier of the chain, 32 hexadecimal digits; None where no file of it is intact."""
        return self._files[0].header.chain.hex() if self._files else None

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Those whose files are all there and intact as far as is known, in the order of their numbers."""
        return tuple(self._checkpoints.values())

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The files that are named like the chain's and can't be used, in the order of their numbers."""
        found = {**self._damaged, **self._misfits}
        return tuple(Problem(str(name), found[name]) for name in sorted(found))

    @property
    def newest(self) -> Checkpoint:
        """The checkpoint with the greatest number.

        Raises:
            ChainError: there is none; it says why.
        """
        if not self._checkpoints:
            raise ChainError(f"{self._path} holds no complete checkpoint. {few(self.problems)}")
        return self.checkpoints[-1]

    def __len__(self) -> int:
        return len(self._checkpoints)

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self.checkpoints)

    def __getitem__(self, at: int | str) -> Checkpoint:
        """The checkpoint with that number or identifier.

        Raises:
            ChainError: there is none, or it is not complete; it says why.
        """
        if isinstance(at, bool) or not isinstance(at, int | str):
            raise TypeError(f"a checkpoint is called by its number or its identifier, not by {at!r}")
        for checkpoint in self._checkpoints.values():
            if at in (checkpoint.number, checkpoint.id):
                return checkpoint
        there = few(checkpoint.number for checkpoint in self) or "none"
        reasons = few(problem for problem in self.problems if problem.number == at)
        raise ChainError(f"{self._path} has no complete checkpoint {at}; it has {there}. {reasons}".rstrip())

    def read(
        self, name: str, start: int = 0, stop: int | None = None, *, at: int | str | None = None
    ) -> bytes:
        """The bytes [start, stop) of a region; only the runs that hold some of them are read.

        Args:
            name: of the region.
            start: the first byte, counted in the region.
            stop: the byte after the last one; None: the region's end.
            at: the checkpoint, by number or identifier; None: the newest.

        Raises:
            ChainError: no such region or checkpoint, or a file turned out damaged; it names the file.
            ValueError: the bytes are not within the region.
        """
        self._check()
        checkpoint = self.newest if at is None else self[at]
        region = find_region(self._path, checkpoint.regions, name)
        nbytes = checkpoint.regions[region].nbytes
        end = nbytes if stop is None else stop
        if not 0 <= start <= end <= nbytes:
            raise ValueError(f"[{start}, {end}) is not within the {nbytes} bytes of region {name!r}")

        def read(state: State) -> bytes:
            data = io.BytesIO()
            for offset in range(start, end, _READ_BYTES):
                data.write(state.read(region, offset, min(offset + _READ_BYTES, end)))
            return data.getvalue()

        return self._with_state(checkpoint, read)

    def verify(self, progress: Callable[[int, int], None] | None = None) -> tuple[Problem, ...]:
        """Reads everything, and says what is wrong.

        Args:
            progress: called now and then with the bytes of the files done so far, and in all.

        Returns:
            `problems`, with those found; empty for a chain that is intact.
        """
        self._check()
        total = sum(file.nbytes for file in self._files)
        done = 0

        def tell(count: int) -> None:
            if progress is not None:
                progress(done + count, total)

        for file in self._files:
            try:
                for count in file.verify():
                    tell(min(count, file.nbytes))  # runs that lie on each other are read more than once
            except FormatError as error:
                self._exclude(DamagedFile(file, str(error)))
            done += file.nbytes
            tell(0)
        return self.problems

    def close(self) -> None:
        """Closes the files; idempotent. What is known of the checkpoints stays."""
        if not self._closed:
            self._closed = True
            self._undo.close()

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        newest = f", newest {self.newest.number}" if self._checkpoints else ""
        problems = f", {len(self.problems)} problems" if self.problems else ""
        closed = ", closed" if self._closed else ""
        what = f"{len(self)} checkpoints{newest}{problems}{closed}"
        return f"<dirtytrack.checkpoint.Chain in {self._path}: {what}>"

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"{self!r} can't be read any more: open another one")

    def _lineage(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        # It and the checkpoints that it followed, as far as they are there; the oldest first.
        checkpoints = [checkpoint]
        while (parent := checkpoints[-1].parent) in self._checkpoints:
            checkpoints.append(self._checkpoints[parent])
        return checkpoints[::-1]

    def _with_state(self, checkpoint: Checkpoint, action: Callable[[State], _T]) -> _T:
        # What action makes of the state. If a file turns out damaged, that is left out from now on, and
        # another way to the same state tried if there is one; else it is a ChainError that names the file.
        while True:
            checkpoint = self[checkpoint.id]
            try:
                if self._last is None or self._last[0] is not checkpoint:
                    self._last = checkpoint, State(checkpoint._way())
                return action(self._last[1])
            except DamagedFile as damage:
                self._exclude(damage)
                if checkpoint.id not in self._checkpoints:
                    where = self._path / str(damage.file.name)
                    raise ChainError(
                        f"checkpoint {checkpoint.number} can't be read: {where}: {damage}"
                    ) from damage

    def _exclude(self, damage: DamagedFile) -> None:
        self._files = [file for file in self._files if file is not damage.file]
        self._damaged[damage.file.name] = str(damage)
        self._arrange()

    def _arrange(self) -> None:
        self._checkpoints, misfits = arrange(self._files)
        self._misfits = {name: reason for name, reason in misfits.items() if name not in self._gone}

    def _check_history(self) -> None:
        # Which of two histories is meant is not for us to guess.
        if not self._files and not self._damaged:
            raise ChainError(f"{self._path} holds no checkpoint")
        chains: dict[bytes, list[FileName]] = {}
        for file in self._files:
            chains.setdefault(file.header.chain, []).append(file.name)
        if len(chains) > 1:
            files = "; of another ".join(map(few, chains.values()))
            raise ChainError(
                f"{self._path} holds files of several chains: of one {files}. Move the foreign ones away"
            )
        for older, newer in itertools.pairwise(self):
            if older.number == newer.number:
                raise ChainError(
                    f"{self._path} holds two different checkpoints {newer.number}, {older.files[-1]} and "
                    f"{newer.files[-1]}: two copies of the chain were continued. Move the files of one away"
                )


def find_region(path: Path, layouts: tuple[Layout, ...], name: str) -> int:
    """The place of a region in the table.

    Raises:
        ChainError: there is none of that name.
    """
    names = [layout.name for layout in layouts]
    if name not in names:
        raise ChainError(f"the chain in {path} has no region {name!r}. It has {few(names)}")
    return names.index(name)
