"""What a checkpoint costs: the pause, the throughput both ways, and what one would do without it."""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

import dirtytrack
from dirtytrack.checkpoint import Checkpointer, restore

from .fixtures import PAGE, BareScan, address, c_library, memory_folder, size, some_pages, touched, warm
from .harness import Budget, Outcome, Scale, Seconds, Side, compare, measure, require_memory, row

_WRITE = 1 << 22  # bytes that the yardsticks write or read at a time
_READ = 1 << 20


class _Saved:
    """Memory of noise, which does not compress, in a chain of its own on the temporary directory's disk."""

    def __init__(self, nbytes: int, folder: Path, **options: Any) -> None:
        require_memory(2 * nbytes)
        self.array = touched(nbytes)
        self.array[:] = _noise(nbytes)
        self.pages = nbytes // PAGE
        self.path = folder / "chain"
        self.session = dirtytrack.Session()
        self.region = self.session.track(self.array)
        self.checkpoints = Checkpointer(
            self.path, {"noise": self.region}, session=self.session, compression="none", **options
        )

    def dirty(self, fraction: float, seed: int) -> None:
        """Changes a byte on each of a fraction of the pages, with everything before it on the disk."""
        self.checkpoints.flush()
        self.array[some_pages(self.pages, fraction, seed) * np.uint64(PAGE)] += 1

    def close(self) -> None:
        self.checkpoints.close()
        self.session.close()


@contextmanager
def _saved(scale: Scale, *, gib: float = 1, place: Path | None = None, **options: Any) -> Iterator[_Saved]:
    with tempfile.TemporaryDirectory(dir=place) as folder:
        saved = _Saved(int(scale.gib(2) * gib) // 2, Path(folder), **options)
        try:
            yield saved
        finally:
            saved.close()


def _noise(nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, nbytes, dtype=np.uint8)


def _write_all(path: Path, array: np.ndarray[Any, Any], *, sync: bool = True) -> None:
    data, fd = array.data, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for start in range(0, len(data), _WRITE):
        os.write(fd, data[start : start + _WRITE])
    if sync:
        os.fsync(fd)
    os.close(fd)


@row("checkpoint-pause", Budget(1.2))
def checkpoint_pause(scale: Scale) -> Iterator[Outcome]:
    """What a save takes between the beginning of its scan and the end of its copy: one native call."""
    yield from _pause(
        scale, "scan and copy of a save", lambda saved: Seconds(saved.checkpoints.save().copying)
    )


@row("checkpoint-save")
def checkpoint_save(scale: Scale) -> Iterator[Outcome]:
    """All of ``save()`` until it returns: with the proof that nothing was written meanwhile, another scan."""
    yield from _pause(scale, "save", lambda saved: saved.checkpoints.save())
    yield from _pause(scale, "save", lambda saved: saved.checkpoints.save(), proves=True)


def _pause(
    scale: Scale, what: str, act: Callable[[_Saved], object], *, proves: bool = False
) -> Iterator[Outcome]:
    native = c_library()
    with _saved(scale) as saved:
        saved.checkpoints.save(wait=True)
        scan = BareScan(saved.region.address, saved.region.nbytes)
        staging = touched(saved.region.nbytes // 8)
        runs = np.zeros((0, 2), np.uint64)

        def dirty(pair: int) -> None:
            nonlocal runs
            saved.dirty(0.01, pair)
            pages = np.sort(some_pages(saved.pages, 0.01, pair))
            runs = np.stack([pages, pages + np.uint64(1)], axis=1)

        def scan_and_copy() -> None:
            scan()
            native.bench_gather(address(staging), address(saved.array), address(runs), len(runs), PAGE)
            if proves:
                scan()

        yardstick = "bare ioctl, then memcpy of the pages in C"
        yield compare(
            f"{what}, {size(saved.region.nbytes)}, 1% written",
            Side(lambda: act(saved), dirty),
            Side(scan_and_copy, dirty, f"{yardstick}, then the ioctl again" if proves else yardstick),
            pairs=scale.repeat(60),
        )
        scan.close()


@row("checkpoint-durable", Budget(0.5, faster=True))
def checkpoint_durable(scale: Scale) -> Iterator[Outcome]:
    """From the return of ``save()`` until what it has captured is committed; on a tmpfs no disk hides it."""
    native = c_library()
    with _saved(scale, gib=0.5, place=memory_folder()) as saved:
        saved.checkpoints.save(wait=True)
        gathered = touched(saved.region.nbytes // 8)
        plain = saved.path.parent / "plain"
        runs = np.zeros((0, 2), np.uint64)

        def capture(pair: int) -> None:
            forget(pair)
            saved.dirty(0.1, pair)
            saved.checkpoints.save()

        def forget(pair: int) -> None:
            nonlocal runs
            saved.checkpoints.flush()
            plain.unlink(missing_ok=True)
            pages = np.sort(some_pages(saved.pages, 0.1, pair))
            runs = np.stack([pages, pages + np.uint64(1)], axis=1)
            warm(saved.region.nbytes // 8)

        def gather_and_write() -> None:
            fd = os.open(plain, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            native.bench_gather_and_write(
                fd, address(gathered), address(saved.array), address(runs), len(runs), PAGE
            )
            os.close(fd)

        yield compare(
            f"captured to durable, {size(saved.region.nbytes)}, 10% written, tmpfs",
            Side(saved.checkpoints.flush, capture),
            Side(gather_and_write, forget, "memcpy and write of the pages in C"),
            pairs=scale.repeat(20),
            faster=True,
        )


@row("checkpoint-durable-disk", Budget(0.25))
def checkpoint_durable_disk(scale: Scale) -> Iterator[Outcome]:
    """The same on the disk of the temporary directory, against writing everything."""
    with _saved(scale) as saved:
        saved.checkpoints.save(wait=True)
        plain = saved.path.parent / "plain"

        def capture(pair: int) -> None:
            saved.dirty(0.1, pair)
            saved.checkpoints.save()

        yield compare(
            f"captured to durable, {size(saved.region.nbytes)}, 10% written, disk",
            Side(saved.checkpoints.flush, capture),
            Side(lambda: _write_all(plain, saved.array), name="write and fsync of everything"),
            pairs=scale.repeat(7),
        )


@row("checkpoint-base-memory", Budget(0.8, faster=True))
def checkpoint_base_memory(scale: Scale) -> Iterator[Outcome]:
    """A first save on a tmpfs, where no disk hides what it costs, against safetensors or a plain write."""
    nbytes = scale.gib(1) // 2
    require_memory(4 * nbytes)
    array = touched(nbytes)
    array[:] = _noise(nbytes)
    kept: list[Checkpointer] = []
    name, write = _plain_writer()
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder, dirtytrack.Session() as session:
        region = session.track(array)

        def forget(_pair: int = 0) -> None:
            while kept:
                kept.pop().close()
            for path in Path(folder).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

        def begin(_pair: int) -> None:
            forget()
            kept.append(
                Checkpointer(Path(folder, "chain"), {"a": region}, session=session, compression="none")
            )

        yield compare(
            f"base, {size(nbytes)}, tmpfs",
            Side(lambda: kept[0].save(wait=True), begin),
            Side(lambda: write(Path(folder, "plain"), array), forget, name),
            pairs=scale.repeat(10),
            faster=True,
        )
        forget()


def _plain_writer() -> tuple[str, Callable[[Path, Any], object]]:
    try:
        safetensors = importlib.import_module("safetensors.numpy")
    except ImportError:
        return "write of the same bytes", functools.partial(_write_all, sync=False)
    return "safetensors' save_file", lambda path, array: safetensors.save_file({"a": array}, path)


@row("checkpoint-base", Budget(0.9, faster=True))
def checkpoint_base(scale: Scale) -> Iterator[Outcome]:
    """A first save until it is on the disk, hashes and checksums included; not compressed."""
    yield from _base(scale, "none", _noise)


@row("checkpoint-base-compressed")
def checkpoint_base_compressed(scale: Scale) -> Iterator[Outcome]:
    """The same of numbers that zstd makes a quarter of, against writing them as they are."""
    yield from _base(scale, "auto", lambda nbytes: _noise(nbytes) & 3)


def _base(
    scale: Scale, compression: Literal["auto", "none"], content: Callable[[int], Any]
) -> Iterator[Outcome]:
    nbytes = scale.gib(1)
    require_memory(4 * nbytes)
    array = touched(nbytes)
    array[:] = content(nbytes)
    kept: list[Checkpointer] = []
    with tempfile.TemporaryDirectory() as folder, dirtytrack.Session() as session:
        region = session.track(array)
        names = itertools.count()

        def forget(_pair: int = 0) -> None:
            for checkpoints in kept:
                checkpoints.close()
            kept.clear()
            for path in Path(folder).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            os.sync()
            warm(nbytes + nbytes // 4)

        def begin(_pair: int) -> None:
            forget()
            path = Path(folder, str(next(names)))
            kept.append(Checkpointer(path, {"a": region}, session=session, compression=compression))
            warm(nbytes + nbytes // 4)

        outcome = compare(
            f"base, {size(nbytes)}" + ("" if compression == "none" else ", compressed"),
            Side(lambda: kept[0].save(wait=True), begin),
            Side(
                lambda: _write_all(Path(folder, "plain"), array), forget, "write and fsync of the same bytes"
            ),
            pairs=scale.repeat(15),
            faster=True,
        )
        forget()
    yield outcome


@row("checkpoint-restore", Budget(0.8, faster=True))
def checkpoint_restore(scale: Scale) -> Iterator[Outcome]:
    """Into memory that is populated, from the page cache, every checksum checked."""
    with _saved(scale) as saved:
        saved.checkpoints.save(wait=True)
        plain = saved.path.parent / "plain"
        _write_all(plain, saved.array)
        target = touched(saved.region.nbytes)

        def read() -> None:
            data, fd = target.data, os.open(plain, os.O_RDONLY)
            for start in range(0, len(data), _READ):
                os.preadv(fd, [data[start : start + _READ]], start)
            os.close(fd)

        yield compare(
            f"restore, {size(saved.region.nbytes)}",
            Side(lambda: restore(saved.path, into={"noise": target})),
            Side(read, name="read of the same bytes into the same memory"),
            pairs=scale.repeat(15),
            faster=True,
        )


def _fork_and_write(path: Path, array: np.ndarray[Any, Any]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            _write_all(path, array)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _numpy_save(path: Path, array: np.ndarray[Any, Any]) -> None:
    with path.open("wb") as file:
        np.save(file, array)
        os.fsync(file.fileno())


def _pickle(path: Path, array: np.ndarray[Any, Any]) -> None:
    with path.open("wb") as file:
        pickle.dump(array, file, protocol=5)
        os.fsync(file.fileno())


@row("checkpoint-instead")
def checkpoint_instead(scale: Scale) -> Iterator[Outcome]:
    """A save of 1 % until it is on the disk, against what saves everything until it is."""
    with _saved(scale) as saved:
        saved.checkpoints.save(wait=True)
        plain = saved.path.parent / "plain"
        dirty = functools.partial(saved.dirty, 0.01)
        for name, act in (
            ("fork, write and fsync of everything", _fork_and_write),
            ("numpy.save and fsync of everything", _numpy_save),
            ("pickle and fsync of everything", _pickle),
        ):
            yield compare(
                f"save and flush, {size(saved.region.nbytes)}, 1% written",
                Side(lambda: saved.checkpoints.save(wait=True), dirty),
                Side(functools.partial(act, plain, saved.array), dirty, name),
                pairs=scale.repeat(5),
            )


@row("checkpoint-curve")
def checkpoint_curve(scale: Scale) -> Iterator[Outcome]:
    """Dirty fraction to what the caller waits, and to what the disk is given."""
    with _saved(scale) as saved:
        saved.checkpoints.save(wait=True)
        for fraction in (0.001, 0.01, 0.03, 0.10, 0.25, 0.50, 1.0):
            dirty = functools.partial(saved.dirty, fraction)
            outcome = measure(
                f"save, {size(saved.region.nbytes)}, {fraction:.1%} at random",
                Side(saved.checkpoints.save, dirty),
                samples=scale.repeat(7),
            )
            yield outcome
            yield measure(
                f"save and flush, {size(saved.region.nbytes)}, {fraction:.1%}",
                Side(lambda: saved.checkpoints.save(wait=True), dirty),
                samples=scale.repeat(5),
            )


@row("checkpoint-resume")
def checkpoint_resume(scale: Scale) -> Iterator[Outcome]:
    """A restore, the hash of every block, and a session that tracks it."""
    with _saved(scale) as saved:
        saved.checkpoints.save(wait=True)
        saved.close()
        target = touched(saved.region.nbytes)
        kept: list[Checkpointer] = []

        def close(_pair: int) -> None:
            while kept:
                kept.pop().close()

        def resume() -> None:
            kept.append(Checkpointer.resume(saved.path, {"noise": target}))

        yield measure(f"resume, {size(target.nbytes)}", Side(resume, close), samples=scale.repeat(5))
        close(0)
