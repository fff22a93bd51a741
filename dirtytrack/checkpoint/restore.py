"""Bringing a checkpoint back: into memory that is there, as new arrays, or as mappings of its file."""

from __future__ import annotations

import errno
import functools
import json
import mmap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dirtytrack.checkpoint._arguments import check_regions
from dirtytrack.checkpoint.format.layout import Layout, stored
from dirtytrack.checkpoint.format.structures import FormatError
from dirtytrack.checkpoint.read.archive import Archive, read_from
from dirtytrack.checkpoint.read.filling import Target, fill
from dirtytrack.checkpoint.read.state import State
from dirtytrack.checkpoint.store import Place
from dirtytrack.checkpoint.store.urls import StoreOptions
from dirtytrack.errors import ChainError
from dirtytrack.kernel.touch import Memory
from dirtytrack.tracking import alloc, resolve

if TYPE_CHECKING:
    import numpy as np


def restore(
    path: Place,
    *,
    into: Mapping[str, object],
    at: int | str | None = None,
    progress: Callable[[int, int], None] | None = None,
    store_options: StoreOptions | None = None,
) -> Any:
    """Writes a checkpoint's regions into memory.

    Names, sizes and elements, whether the memory is protected, and of the files all but the stored contents,
    are checked before the first byte is written. The contents are checked on the way, and so is memory that
    becomes inaccessible meanwhile, or lies beyond the end of its file: after an exception the memory is
    undefined, unless it says that nothing was written.

    Args:
        path: the directory of the chain, or its URL.
        into: for each region wanted, memory of its size: what `Session.track` takes, or a tracked region.
            Memory that knows its elements (an array) must have those of the region.
        at: the checkpoint, by number or identifier. None: the newest; if a file of it is damaged, the newest
            one that does not need that file, with a warning in the log ``dirtytrack.checkpoint``.
        progress: called with the bytes of stored blocks that are restored so far, and of all, such as a
            `ShowProgress`. It is called by several threads, one at a time; where a file turns out damaged it
            begins anew.
        store_options: of a URL, as for `Checkpointer`.

    Returns:
        The meta given to the save.

    Raises:
        ChainError: the memory does not fit, there is no such checkpoint, or none that is intact; it says
            which file and why.
        TypeError, ValueError: of the arguments: no memory, or the same memory twice.
        KernelError: memory can't be written: it is protected, a guard page, beyond the end of its file, or
            not mapped. It names the region, the addresses and the remedy.
        OSError: as for `Chain`, and whatever goes wrong with reading.
        ImportError: the contents are compressed and there is no zstd, naming the extra.
    """
    targets = _targets(into)
    return read_from(
        path,
        lambda archive: json.loads(fill(archive, targets, at, progress).file.description.meta),
        options=store_options,
    )


def load(
    path: Place,
    *,
    at: int | str | None = None,
    lazy: bool = False,
    progress: Callable[[int, int], None] | None = None,
    store_options: StoreOptions | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """Reads a checkpoint's regions into new arrays, page-aligned and writable.

    A region that was saved as plain bytes becomes an array of uint8.

    Args:
        path: the directory of the chain, or its URL.
        at: as for `restore`.
        lazy: whether to map the base's file copy-on-write instead of reading it. Then only what changed since
            is read, the rest when it is touched. Default: all is read. It takes a base that is laid out as
            memory is: not compressed, and written as one. Its bytes are *not* checked then (`Chain.verify`
            does that), and the process is killed by SIGBUS if somebody cuts the file off or the disk fails.
            Compaction and `Chain.close` do no harm; what is written to an array stays in memory. No object
            store has this.
        progress: as for `restore`; lazily, it is not called.
        store_options: of a URL, as for `Checkpointer`.

    Returns:
        The arrays by name.

    Raises:
        ChainError: as for `restore`; a region is described as an impossible array; or lazily, a region is
            not laid out as memory is.
        MemoryError: there is no memory for a region, or no address space.
        ImportError: without numpy, or as for `restore`.
    """
    try:
        import numpy  # noqa: F401 - before anything is read
    except ImportError as error:
        raise ImportError('load() needs numpy: pip install "dirtytrack[numpy]", or use restore()') from error

    def read(archive: Archive) -> dict[str, np.ndarray[Any, Any]]:
        if lazy and not archive.store.maps:
            raise ChainError(f"{archive.store.place} can't be mapped: load it with lazy=False")
        return archive.read_at(at, _map if lazy else functools.partial(_load, progress=progress))[1]

    return read_from(path, read, options=store_options)


def _targets(into: Mapping[str, object]) -> list[Target]:
    targets = []
    for name, memory in check_regions(into).items():
        found = resolve(memory, empty=True)
        targets.append(Target.of(Layout.of(name, found, mmap.PAGESIZE), found.view))
    return targets


def _load(state: State, progress: Callable[[int, int], None] | None) -> dict[str, np.ndarray[Any, Any]]:
    memories = {place: _allocated(layout) for place, layout in enumerate(stored(state.layouts))}
    _fill(state, memories, progress)
    return _arrays(state, memories)


def _map(state: State) -> dict[str, np.ndarray[Any, Any]]:
    mapped: dict[int, mmap.mmap] = {}
    others: dict[int, mmap.mmap] = {}  # which came after the base, or have another length since
    origins = state.origins(state.base)
    for place, layout in enumerate(stored(state.layouts)):
        origin = origins.get(place)
        if origin is None or state.base.layouts[origin].nbytes != layout.nbytes:
            others[place] = _allocated(layout)
            continue
        if state.base.layouts[origin].linear is None:
            raise ChainError(
                f"region {layout.name!r} can't be loaded lazily, for {state.base.name} does not have it laid "
                'out as memory is: compact() the chain with compression="none", or load it with lazy=False'
            )
        mapped[place] = _obtain(layout, functools.partial(state.map, origin))
    state.complete(mapped)
    _fill(state, others)
    return _arrays(state, mapped | others)


def _allocated(layout: Layout) -> mmap.mmap:
    memory = _obtain(layout, functools.partial(alloc, layout.nbytes))
    _array(layout, memory)  # which there has to be, before anything is read
    return memory


def _fill(
    state: State, memories: Mapping[int, mmap.mmap], progress: Callable[[int, int], None] | None = None
) -> None:
    targets = {
        place: Memory(
            f"the array of region {state.layouts[place].name!r}",
            memoryview(memory),
            "Load again",
            is_own=True,
        )
        for place, memory in memories.items()
    }
    state.fill(targets, zeroed=True, progress=progress)


def _arrays(state: State, memories: Mapping[int, mmap.mmap]) -> dict[str, np.ndarray[Any, Any]]:
    arrays = {}
    for place, layout in enumerate(state.layouts):
        owner = place if layout.same_as is None else layout.same_as
        arrays[layout.name] = _array(layout, memories[owner] if layout.nbytes else bytearray())
    return arrays


def _obtain(layout: Layout, get: Callable[[], mmap.mmap]) -> mmap.mmap:
    try:
        return get()
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise MemoryError(
            f"region {layout.name!r} has {layout.nbytes} bytes, for which there is no memory"
        ) from error


def _array(layout: Layout, memory: mmap.mmap | bytearray) -> np.ndarray[Any, Any]:
    try:
        return layout.array(memory)
    except (FormatError, RecursionError) as error:
        raise ChainError(f"{error}. Chain.read() gives its bytes") from error
