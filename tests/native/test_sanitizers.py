"""The C core under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from _lib import limits
from _lib.support import require

_NATIVE = Path(__file__).parents[2] / "dirtytrack/native"
_DRIVER = sorted(Path(__file__).parent.glob("*.c"))
_FLAGS = ("-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-pthread", f"-I{_NATIVE}")
# What the driver puts something in the place of, to make it fail.
_WRAPPED = (
    *("ioctl", "mmap", "munmap", "madvise", "msync", "syscall", "open"),
    *("pread", "pwrite", "renameat2", "sync_file_range", "fsync"),
)

Driver = Callable[..., subprocess.CompletedProcess[str]]


def _gcc(*arguments: object) -> None:
    subprocess.run(["gcc", *_FLAGS, *map(str, arguments)], check=True)


def _require(sanitizer: str, folder: Path) -> None:
    source = folder / "empty.c"
    source.write_text("int main(void) { return 0; }\n")
    try:
        built = subprocess.run(
            ["gcc", sanitizer, source, "-o", folder / "empty"], capture_output=True, check=False
        )
    except FileNotFoundError:
        require(False, "gcc, to compile the driver")
    require(built.returncode == 0, f"gcc's runtime for {sanitizer}")


@pytest.fixture(scope="module", params=["address,undefined", "thread"])
def driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """Builds the driver with every source of the core, and runs it with the arguments given."""
    folder = tmp_path_factory.mktemp("sanitizers")
    sanitizer = f"-fsanitize={request.param}"
    _require(sanitizer, folder)
    memory = _NATIVE / "base/memory.c"
    sources = [
        path for path in sorted(_NATIVE.glob("*/*.c")) if path != memory and path.parent.name != "binding"
    ]
    # For the address sanitizer the driver brings an allocator that shows the bounds of each block.
    renamed = ["-Ddt_alloc=mapped_alloc", "-Ddt_free=mapped_free"] if "address" in request.param else []
    strict = [sanitizer, "-fno-sanitize-recover=all"]
    _gcc(*strict, *renamed, "-c", memory, "-o", folder / "memory.o")
    wrapped = [f"-Wl,--wrap={name}" for name in _WRAPPED]
    _gcc(*strict, *wrapped, *_DRIVER, *sources, folder / "memory.o", "-o", folder / "driver")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(folder / "driver"), *arguments]
        done = limits.run(command)
        if "unexpected memory mapping" in done.stderr:  # too random an address space for this runtime
            command = ["setarch", "-R", *command]
            done = limits.run(command)
        return done

    return run


def test_the_core_is_clean(driver: Driver) -> None:
    """Run lists, bitmaps, threads, closing, forking: right answers, and nothing for a sanitizer to say."""
    done = driver()
    assert (done.returncode, done.stdout, done.stderr) == (0, "all so\n", "")


def test_the_sanitizers_are_awake(driver: Driver) -> None:
    """A run list without the room it needs, and a race, do not pass."""
    done = driver("fail")
    assert done.returncode != 0
    assert "Sanitizer" in done.stderr
