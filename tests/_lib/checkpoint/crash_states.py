"""What a crash of the machine can leave of a writer's files, by the letter of what the system promises.

`Recorder` notes every operation on files. A crash leaves, as `crash_states` has it:

- of a file, what was written before its last fsync; and of later writes all, none, some, zeros, or some
  sectors;
- of a directory, the names as they were at its last fsync; and of later creations, renames and removals any,
  as if they had happened in another order. Each is whole, or it is not there.

No file system is as bad as that, but each is as bad in some of it.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from _lib.checkpoint.intercept import Call
from dirtytrack.native import ffi

_SECTOR = 512
_ALL_SUBSETS = 5  # so many operations are tried in all combinations, more of them in samples
_SAMPLES = 8


class Make(NamedTuple):
    """A new file or directory, and its name."""

    directory: Path
    name: str
    node: int


class Rename(NamedTuple):
    directory: Path
    name: str
    new: str
    node: int


class Unlink(NamedTuple):
    directory: Path
    name: str


class Write(NamedTuple):
    node: int
    offset: int
    data: bytes


class Sync(NamedTuple):
    """An fsync of a file or a directory, which has returned."""

    what: int | Path


class Told(NamedTuple):
    """No operation: the writer has told its caller that this checkpoint is committed."""

    number: int


Operation = Make | Rename | Unlink | Write | Sync | Told
Naming = Make | Rename | Unlink
Files = dict[str, bytes]


class Recorder:
    """A hook that makes every call, one at a time, and notes what it did.

    Attributes:
        operations: in order.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._what: dict[int, int | Path] = {}  # by descriptor
        self._names: dict[tuple[Path, str], int] = {}
        self._nodes = itertools.count()
        self._mutex = threading.Lock()

    def __call__(self, call: Call) -> object:
        with self._mutex:
            done = call.run()
            note = getattr(self, f"_{call.name}", None)
            if note is not None:
                note(done, *call.arguments, **call.keywords)
            return done

    def _mkdir(self, _: None, path: str | Path, _mode: int) -> None:
        self.operations.append(Make(Path(path).parent, Path(path).name, next(self._nodes)))

    def _open(self, fd: int, path: Path | str, flags: int, _mode: int = 0, *, dir_fd: int = -1) -> None:
        self._what.pop(fd, None)
        if dir_fd < 0:
            self._what[fd] = Path(path)
        elif flags & os.O_CREAT:
            self._what[fd] = self._file(self._directory(dir_fd), str(path))

    def _dt_create(self, error: int, directory: int, name: str, file: Any) -> None:
        assert error == 0
        self._what[file[0]] = self._file(self._directory(directory), name)

    def _file(self, directory: Path, name: str) -> int:
        if (directory, name) not in self._names:
            node = self._names[directory, name] = next(self._nodes)
            self.operations.append(Make(directory, name, node))
        return self._names[directory, name]

    def _dt_write_all(self, error: int, fd: int, pieces: Any, count: int) -> None:
        node = self._what[fd]
        assert isinstance(node, int)
        assert error == 0
        for one in pieces[0:count]:
            self.operations.append(Write(node, one.offset, bytes(ffi.buffer(one.data, one.bytes))))

    def _fsync(self, _: object, fd: int) -> None:
        self.operations.append(Sync(self._what[fd]))

    def _dt_sync_directory(self, error: int, fd: int) -> None:
        if error == 0:
            self._fsync(None, fd)

    def _dt_rename_new(self, error: int, fd: int, name: bytes, new: bytes) -> None:
        if error == 0:
            directory = self._directory(fd)
            node = self._names[directory, new.decode()] = self._names.pop((directory, name.decode()))
            self.operations.append(Rename(directory, name.decode(), new.decode(), node))

    def _unlink(self, _: None, name: str, *, dir_fd: int) -> None:
        self.operations.append(Unlink(self._directory(dir_fd), name))

    def _directory(self, fd: int) -> Path:
        path = self._what[fd]
        assert isinstance(path, Path)
        return path


def crash_states(
    operations: Sequence[Operation], directory: Path, draw: random.Random
) -> Iterator[Files | None]:
    """What a crash after these operations can leave of a directory, with repetitions; None: not even that."""
    contents = dict(_contents(operations, draw))
    for lasting in _kept(operations, draw):
        names = _names(lasting)
        if (directory.parent, directory.name) not in names:
            yield None
            continue
        nodes = {name: node for (where, name), node in names.items() if where == directory}
        yield {name: contents[node][0] for name, node in nodes.items()}
        yield {name: contents[node][-1] for name, node in nodes.items()}
        for name, node in nodes.items():
            for data in contents[node][1:]:
                yield {other: contents[nodes[other]][0] for other in nodes} | {name: data}


def _kept(operations: Sequence[Operation], draw: random.Random) -> Iterator[list[Naming]]:
    # The operations on names that last, in each way that is possible.
    synced = {one.what: at for at, one in enumerate(operations) if isinstance(one, Sync)}
    naming = [(at, one) for at, one in enumerate(operations) if isinstance(one, Make | Rename | Unlink)]
    pending = [at for at, one in naming if at > synced.get(one.directory, -1)]
    for lost in _subsets(pending, draw):
        yield [one for at, one in naming if at not in lost]


def _subsets(items: list[int], draw: random.Random) -> Iterator[set[int]]:
    if len(items) <= _ALL_SUBSETS:
        for count in range(len(items) + 1):
            yield from map(set, itertools.combinations(items, count))
        return
    yield set()
    yield set(items)
    for item in items:
        yield {item}
        yield set(items) - {item}
    for _ in range(_SAMPLES):
        yield set(draw.sample(items, draw.randrange(len(items))))


def _names(operations: Iterable[Naming]) -> dict[tuple[Path, str], int]:
    names: dict[tuple[Path, str], int] = {}
    for one in operations:
        if isinstance(one, Make):
            names[one.directory, one.name] = one.node
        else:
            names.pop((one.directory, one.name), None)
        if isinstance(one, Rename):
            names[one.directory, one.new] = one.node
    return names


def _contents(operations: Sequence[Operation], draw: random.Random) -> Iterator[tuple[int, list[bytes]]]:
    # Of each file: all that was written; then, if some of it is not synced, other things that may be left; at
    # last what was synced and no more.
    synced = {one.what: at for at, one in enumerate(operations) if isinstance(one, Sync)}
    writes: dict[int, list[Write]] = {one.node: [] for one in operations if isinstance(one, Make)}
    pending: dict[int, list[Write]] = {node: [] for node in writes}
    for at, one in enumerate(operations):
        if isinstance(one, Write):
            (writes if at < synced.get(one.node, -1) else pending)[one.node].append(one)
    for node, lasting in writes.items():
        lost = pending[node]
        variants = [_written([*lasting, *some]) for some in _parts(lost, draw)] if lost else []
        yield node, [_written([*lasting, *lost]), *variants, _written(lasting)]


def _parts(writes: list[Write], draw: random.Random) -> Iterator[list[Write]]:
    yield [one._replace(data=bytes(len(one.data))) for one in writes]
    for one in writes:
        yield [one]
        yield [other for other in writes if other is not one]
    for _ in range(_SAMPLES):
        yield [sector for one in writes for sector in _sectors(one) if draw.random() < 0.7]


def _sectors(write: Write) -> Iterator[Write]:
    stop = write.offset + len(write.data)
    bounds = [write.offset, *range(write.offset // _SECTOR * _SECTOR + _SECTOR, stop, _SECTOR), stop]
    for low, high in itertools.pairwise(bounds):
        yield Write(write.node, low, write.data[low - write.offset : high - write.offset])


def _written(writes: Iterable[Write]) -> bytes:
    data = bytearray()
    for one in writes:
        data += bytes(max(0, one.offset + len(one.data) - len(data)))
        data[one.offset : one.offset + len(one.data)] = one.data
    return bytes(data)


def lay_out(files: Files, directory: Path) -> None:
    """Makes a directory with these files."""
    directory.mkdir()
    for name, data in files.items():
        (directory / name).write_bytes(data)


def promised(operations: Sequence[Operation], directory: Path) -> int:
    """The newest checkpoint that has to be there: its caller was told so, or its name was synced; 0: none."""
    told = [one.number for one in operations if isinstance(one, Told)]
    synced = max((at for at, one in enumerate(operations) if one == Sync(directory)), default=0)
    names = [one.new for one in operations[:synced] if isinstance(one, Rename) and one.directory == directory]
    return max([*told, *(int(name.partition("-")[0]) for name in names)], default=0)
