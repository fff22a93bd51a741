"""Reading a chain: what it holds, whether it is intact, and the contents of its regions at any checkpoint."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from dirtytrack._html import bar, table
from dirtytrack._lifetime.closable import Owner
from dirtytrack._text import several, shorten, size
from dirtytrack.checkpoint.difference import Difference, differences
from dirtytrack.checkpoint.export import FileFormat, check_target, export_parts, parts_of
from dirtytrack.checkpoint.format.description import Consistency
from dirtytrack.checkpoint.format.layout import Layout
from dirtytrack.checkpoint.format.structures import BLOCK, block_count
from dirtytrack.checkpoint.read.archive import Archive, Problem, disk_usage
from dirtytrack.checkpoint.read.lineage import Node
from dirtytrack.checkpoint.read.state import State
from dirtytrack.checkpoint.store import Place, open_store
from dirtytrack.checkpoint.store.lock import LockName
from dirtytrack.checkpoint.store.urls import StoreOptions, scheme_of
from dirtytrack.checkpoint.write.copying import copy_files
from dirtytrack.checkpoint.write.options import Options
from dirtytrack.errors import ChainError, ClosedError

__all__ = ["Chain", "Checkpoint", "Problem"]

_READ_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A state that a chain can give back.

    Attributes:
        number: grows along the chain.
        id: identifier of the state, 32 hexadecimal digits.
        parent: identifier of the checkpoint that it followed; None for the first one.
        kind: what its own file is, "base" (everything) or "delta" (what changed since the parent).
        created: when it was captured, in seconds since 1970.
        consistency: "proven", "paused", "stopped" or "unproven", as `Save.consistency`.
        statistics: figures of the save: pause (seconds), rounds, blocks_written, blocks_stored.
        nbytes: length of its own file. (That of a base may have holes, which take no room.)
        regions: the regions that it holds.
    """

    number: int
    id: str
    parent: str | None
    kind: Literal["base", "delta"]
    created: float
    consistency: Consistency
    statistics: Mapping[str, Any] = field(repr=False)
    nbytes: int
    regions: tuple[Layout, ...] = field(repr=False)
    _node: Node = field(repr=False)

    @classmethod
    def _of(cls, node: Node) -> Self:
        described = node.file.description
        return cls(
            number=node.number,
            id=node.id,
            parent=node.parent,
            kind=node.file.header.kind.label,
            created=described.created,
            consistency=described.consistency,
            statistics=described.statistics,
            nbytes=node.file.nbytes,
            regions=node.layouts,
            _node=node,
        )

    @property
    def meta(self) -> Any:
        """The meta that was given to the save; a new copy at each access."""
        return json.loads(self._node.file.description.meta)

    @property
    def consistent(self) -> bool:
        """Whether it is known to be the state of one instant."""
        return self.consistency != "unproven"

    @property
    def file(self) -> str:
        """Name of its own file."""
        return str(self._node.file.name)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that make it up, the base first, its own last."""
        return tuple(str(file.name) for file in self._node.files())


_SHOWN_META = 60  # characters


class Chain(Owner):
    """The checkpoints in a directory, for reading. A context manager, and a collection of `Checkpoint`.

    It opens all files when it is made, and knows no later ones; what a compaction removes meanwhile stays
    readable here. Everything but the stored contents is checked then. The contents are checked when they are
    read, or all at once by `verify`. A file that turns out damaged is not used any more, nor is what stands
    on it: both are in `problems` from then on.

    All chains that a process has open keep at most half as many files open as RLIMIT_NOFILE permits, whose
    soft limit is raised to the hard one for it. Of longer chains the files used last are kept, and the others
    are opened again when they are read. If such a one was removed meanwhile that is a FileNotFoundError: open
    the chain again. `restore` and `load` do so by themselves.

    Of an object store it reads ahead, and what a compaction removes stays readable for the grace period.

    It takes no lock and changes no file. It is for one thread at a time.
    """

    def __init__(self, path: Place, *, store_options: StoreOptions | None = None) -> None:
        """Opens the chain in a directory, or at a URL.

        Args:
            path: the directory, or the URL.
            store_options: of a URL, as for `Checkpointer`.

        Raises:
            FileNotFoundError: there is no such directory.
            NotADirectoryError: it is something else.
            PermissionError: it may not be read. (A file in it that may not be is in `problems`.)
            ChainError: it holds no checkpoint at all, or those of more than one history. (Where files are
                there and none is intact there is no error: the chain is empty then, but for `problems`.)
            OSError: with EMFILE if this process has as many files open as it may, RLIMIT_NOFILE.
        """
        with ExitStack() as undo:
            self._archive = Archive(open_store(path, undo, options=store_options), undo)
            self._undo = undo.pop_all()
        self._known: dict[Node, Checkpoint] = {}
        self._closed = False

    @property
    def path(self) -> Path | str:
        """The directory, or the URL."""
        place = self._archive.store.place
        return Path(place) if scheme_of(place) is None else place

    @property
    def id(self) -> str | None:
        """Identifier of the chain, 32 hexadecimal digits; None where no file of it is intact."""
        return self._archive.id

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The checkpoints whose files are all there and not known to be damaged, by number."""
        return tuple(map(self._checkpoint, self._archive.nodes))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The files that are named like the chain's and can't be used, in the order of their numbers.

        Of an object store behind them, once `verify` was called, commits that are damaged.
        """
        return self._archive.problems

    @property
    def newest(self) -> Checkpoint:
        """The checkpoint with the greatest number.

        Raises:
            ChainError: there is none; it says why.
        """
        return self._checkpoint(self._archive.newest)

    def __len__(self) -> int:
        return len(self._archive.nodes)

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self.checkpoints)

    def __contains__(self, checkpoint: object) -> bool:
        """Whether the state can still be given back, by whatever files."""
        return isinstance(checkpoint, Checkpoint) and self._archive.has(checkpoint.id)

    def __getitem__(self, at: int | str) -> Checkpoint:
        """The checkpoint with that number or identifier.

        Raises:
            ChainError: there is none, or it is not complete; it says why.
        """
        return self._checkpoint(self._archive.find(at))

    def region(self, name: str, *, at: int | str | None = None) -> Layout:
        """Describes a region: its length and its elements.

        Args:
            name: name of the region.
            at: the checkpoint, by number or identifier; None: the newest.

        Raises:
            ChainError: no such region or checkpoint.
        """
        node, region, _ = self._locate(name, 0, None, at)
        return node.layouts[region]

    def read(
        self, name: str, start: int = 0, stop: int | None = None, *, at: int | str | None = None
    ) -> bytes:
        """Reads the bytes [start, stop) of a region; only the segments that hold some of them are read.

        Args:
            name: name of the region.
            start: the first byte, counted in the region.
            stop: the byte after the last one; None: the region's end.
            at: the checkpoint, by number or identifier; None: the newest.

        Raises:
            ChainError: no such region or checkpoint, or a file turned out damaged; it names the file.
            FileNotFoundError: a file was removed that could not be kept open, see `Chain`.
            ValueError: the bytes are not within the region.
        """
        node, region, end = self._locate(name, start, stop, at)

        def read(state: State) -> bytes:
            data = io.BytesIO()
            state.expect(region, start, end)
            for offset in range(start, end, _READ_BYTES):
                data.write(state.read(region, offset, min(offset + _READ_BYTES, end)))
            return data.getvalue()

        return self._archive.read(node, read)

    def is_zero(
        self, name: str, start: int = 0, stop: int | None = None, *, at: int | str | None = None
    ) -> bool:
        """Whether the bytes [start, stop) of a region are known to be zeros without reading them.

        If this is False they may be zeros all the same. It is quick, however many bytes they are.

        Args and errors: as for `read`.
        """
        node, region, end = self._locate(name, start, stop, at)
        first, count = start // BLOCK, block_count(end) - start // BLOCK
        return start == end or self._archive.read(node, lambda state: state.is_zero(region, first, count))

    def diff(self, before: int | str, after: int | str | None = None) -> tuple[Difference, ...]:
        """Says what differs between two checkpoints, region by region; what is equal is not listed.

        Only what was stored for one of the two alone is read.

        Args:
            before: the one, by number or identifier.
            after: the other one. None: the newest.

        Raises:
            ChainError: no such checkpoint, or a file turned out damaged; it names the file.
            FileNotFoundError: as for `read`.
            ImportError: without numpy, naming the extra.
        """
        self._check()
        later = self._archive.newest if after is None else self._archive.find(after)
        return tuple(differences(self._archive, self._archive.find(before), later))

    def verify(self, progress: Callable[[int, int], None] | None = None) -> tuple[Problem, ...]:
        """Reads everything, and returns what is wrong.

        Args:
            progress: called now and then with the bytes of the files done so far, and in all.

        Returns:
            `problems`, with those found; empty for a chain that is intact.

        Raises:
            FileNotFoundError: as for `read`.
        """
        self._check()
        self._archive.verify(progress)
        return self.problems

    def export(
        self,
        to: Place,
        *,
        at: int | str | None = None,
        format: Literal["chain", "safetensors", "npz"] = "chain",
        regions: Iterable[str] | None = None,
        fsync: bool = True,
        lock: LockName = "record",
        progress: Callable[[int, int], None] | None = None,
        store_options: StoreOptions | None = None,
    ) -> tuple[str, ...]:
        """Copies checkpoints to another chain, or the arrays of one to a file for other programs.

        It may run beside a writer, also while that compacts: the copy is of what this chain knows. Everything
        is checked on the way. Whatever fails, nothing of the copy is left.

        A chain is one of its own, which can be read and resumed. Without *at*, what is damaged is left out,
        with what stands on it, and is in `problems` then. Two continuations of one state, of a chain and its
        copy, can't be put together again.

        A file gets its name when it is complete. It takes bounded memory, and as much room again on the disk
        while it is made. One of safetensors holds arrays in C order; regions that are one memory are in it
        once, and its metadata has the other name with that one, as that of its library's ``save_model``. The
        metadata also has the checkpoint's ``id`` and, as JSON, its ``meta``. One of npz is for
        ``numpy.load``. A region of plain bytes is an array of uint8.

        Args:
            to: the directory of a chain, which is made if it is not there, or a URL, and may not hold a
                chain; or the path of a file.
            at: the checkpoint to copy, to a chain with the files that it stands on. None: to a chain all
                checkpoints, to a file the newest one that is intact.
            format: "chain", files as they are here; "safetensors"; or "npz".
            regions: names of those to be in a file. None: all.
            fsync: as for `Checkpointer`, of what is made.
            lock: the same, of a chain.
            progress: called now and then with the bytes of the files, or of the regions, done so far, and in
                all.
            store_options: of a URL that is copied to, as for `Checkpointer`.

        Returns:
            Names of the files.

        Raises:
            FileExistsError: there is a chain already, or the file.
            BusyError, UnsupportedError: as for `Checkpointer`.
            ChainError: there is no such checkpoint or region, it is damaged, or none is intact; or a region
                has elements that such a file can't have: bfloat16 not npz, structures not safetensors.
            StoreError: a file is to be made at a URL.
            FileNotFoundError: as for `read`.
            ImportError: without numpy or safetensors, naming the extra.
            TypeError: regions are one str, or not all str.
            OSError: as the system says.
        """
        self._check()
        if format == "safetensors" or format == "npz":
            return self._export_file(to, at, format, regions, fsync, progress)
        if format != "chain":
            raise ValueError(f'format is "chain", "safetensors" or "npz", not {format!r}')
        if regions is not None:
            raise ValueError("a chain has all regions: choose another format to have some of them")
        options = Options(fsync=fsync, lock=lock, store_options=store_options)
        self._archive.nodes_of(at)  # or there is nothing to make a directory for
        with ExitStack() as undo:
            target = open_store(
                to,
                undo,
                create=True,
                fsync=options.fsync,
                lock=options.lock,
                options=options.store_options,
            )
            return copy_files(self._archive, at, target, progress)

    def disk_usage(self) -> dict[str, int]:
        """The bytes that each file of the chain takes on the disk now, by name.

        These include files that can't be used, and files that a writer has not completed.
        """
        self._check()
        return disk_usage(self._archive.store)

    def close(self) -> None:
        """Closes the files; idempotent. What is known of the checkpoints stays."""
        if not self._closed:
            self._closed = True
            self._undo.close()

    def _export_file(
        self,
        to: Place,
        at: int | str | None,
        kind: FileFormat,
        regions: Iterable[str] | None,
        fsync: bool,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[str, ...]:
        path = check_target(to)
        names = None if regions is None else [*dict.fromkeys(several(regions, "regions"))]
        while True:
            checkpoint = self.newest if at is None else self[at]
            metadata = {"id": checkpoint.id, "meta": json.dumps(checkpoint.meta)}
            try:
                read = functools.partial(self._piece, checkpoint.id)
                parts = parts_of(checkpoint.regions, names, self._archive.store.place, read)
                export_parts(parts, path, kind, metadata=metadata, fsync=fsync, progress=progress)
            except ChainError:
                if at is not None or checkpoint in self:
                    raise  # it is not the files
            else:
                return (path.name,)

    def _piece(self, at: str, name: str, start: int, stop: int) -> bytes:
        return self.read(name, start, stop, at=at)

    def _is_forgotten(self) -> bool:
        return True

    def _repr_html_(self) -> str:
        most = max((one.nbytes for one in self), default=0) or 1
        rows = [
            (
                one.number,
                one.kind,
                bar(one.nbytes / most),
                size(one.nbytes),
                one.consistency,
                shorten(json.dumps(one.meta), _SHOWN_META),
            )
            for one in self
        ]
        heads = ("checkpoint", "kind", "", "file", "consistency", "meta")
        return table(repr(self), heads, rows, left=3)

    def __repr__(self) -> str:
        if not hasattr(self, "_archive"):  # where a repr of its opening is taken
            return "<dirtytrack.checkpoint.Chain: not open>"
        newest = f", newest {self.newest.number}" if len(self) else ""
        problems = f", {len(self.problems)} problems" if self.problems else ""
        what = f"{len(self)} checkpoints{newest}{problems}{', closed' if self._closed else ''}"
        return f"<dirtytrack.checkpoint.Chain in {self.path}: {what}>"

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"{self!r} can't be read any more: open another one")

    def _checkpoint(self, node: Node) -> Checkpoint:
        return self._known.setdefault(node, Checkpoint._of(node))

    def _locate(self, name: str, start: int, stop: int | None, at: int | str | None) -> tuple[Node, int, int]:
        # The state, the region's place in its table, and the end of the bytes.
        self._check()
        node = self._archive.newest if at is None else self._archive.find(at)
        layouts = node.layouts
        (region,) = self._archive.find_regions(layouts, [name])
        nbytes = layouts[region].nbytes
        end = nbytes if stop is None else stop
        if not 0 <= start <= end <= nbytes:
            raise ValueError(f"[{start}, {end}) is not within the {nbytes} bytes of region {name!r}")
        return node, region, end
