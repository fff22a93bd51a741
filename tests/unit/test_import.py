"""Importing costs little and does nothing."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import _cffi_backend
import pytest

import dirtytrack
from dirtytrack import errors

# What a session may do without, with what of the standard library takes long.
_HEAVY = {
    *("numpy", "cffi", "torch", "json", "dataclasses", "inspect", "platform", "argparse", "hashlib"),
    *("pathlib", "urllib", "ipaddress", "logging", "tempfile", "zlib", "random", "subprocess"),
    *("dirtytrack.snapshot", "dirtytrack.checkpoint", "dirtytrack.barrier", "dirtytrack.cli"),
}

_PROGRAM = """
import os, sys
descriptors, modules = set(os.listdir("/proc/self/fd")), set(sys.modules)
{statement}
assert set(os.listdir("/proc/self/fd")) == descriptors, "the import opened something"
print(*set(sys.modules) - modules)
"""


def _loaded_by(statement: str) -> set[str]:
    # Without the site module, which may have loaded anything for an editable install.
    folders = sorted({str(Path(_cffi_backend.__file__).parent), str(Path(dirtytrack.__file__).parents[1])})
    program = f"import sys; sys.path += {folders!r}\n{_PROGRAM.format(statement=statement)}"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.split())


def _own(loaded: set[str]) -> set[str]:
    return {name for name in loaded if name.startswith("dirtytrack")}


def test_the_import_loads_the_errors_only() -> None:
    """No other part of its own, nothing slow of the standard library, and no descriptor."""
    loaded = _loaded_by("import dirtytrack")
    assert _own(loaded) == {"dirtytrack", "dirtytrack.errors"}
    assert not loaded & _HEAVY


def test_a_session_is_light_and_opens_nothing() -> None:
    """No third-party package but cffi's backend, nothing slow of the standard library, no descriptor."""
    loaded = _loaded_by("import dirtytrack; dirtytrack.Session")
    assert "dirtytrack.tracking.session" in loaded
    assert not loaded & _HEAVY


def test_an_error_loads_errors_only() -> None:
    """Who handles it need not be able to track."""
    assert _own(_loaded_by("from dirtytrack import BusyError")) == {"dirtytrack", "dirtytrack.errors"}


def test_every_public_name_is_there_when_it_is_asked_for() -> None:
    """As an attribute, for ``from``, for the star and for dir(); each the same thing every time."""
    names: dict[str, object] = {}
    exec("from dirtytrack import *", names)
    for name in dirtytrack.__all__:
        assert names[name] is getattr(dirtytrack, name) is getattr(dirtytrack, name)
    assert set(dirtytrack.__all__) <= set(dir(dirtytrack))
    assert list(dirtytrack.__all__) == sorted(dirtytrack.__all__)


def test_names_come_from_where_type_checkers_find_them() -> None:
    """What they are told of each name is what it is."""
    told: dict[str, object] = {}
    source = Path(dirtytrack.__file__).read_text()
    exec(source.replace("TYPE_CHECKING = False", "TYPE_CHECKING = True"), told)
    names = {name for name in told if not name.startswith("_") and name != "TYPE_CHECKING"}
    assert names == {*dirtytrack.__all__} - {"__version__"}
    assert all(told[name] is getattr(dirtytrack, name) for name in names)


def test_a_name_that_is_not_there() -> None:
    """An AttributeError as of any module, and no import for it."""
    with pytest.raises(AttributeError, match="module 'dirtytrack' has no attribute 'wach'"):
        dirtytrack.wach  # noqa: B018
    program = "import dirtytrack; hasattr(dirtytrack, 'wach')"
    assert _own(_loaded_by(program)) == {"dirtytrack", "dirtytrack.errors"}


@pytest.mark.parametrize("name", sorted({*dirtytrack.__all__} - {*dir(errors)} - {"__version__"}))
def test_a_name_that_is_asked_for_without_a_descriptor(name: str) -> None:
    """It can't be imported: an error that names the limit. Later it is there."""
    program = f"""
import errno, os, resource
import dirtytrack
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True: taken.append(os.open("/dev/null", 0))
except OSError: pass
try:
    dirtytrack.{name}
except dirtytrack.DirtyTrackError as error:
    assert isinstance(error, dirtytrack.KernelError) and error.errno == errno.EMFILE, error
    assert "RLIMIT_NOFILE" in str(error), error
else:
    raise AssertionError("it was there already")
for descriptor in taken: os.close(descriptor)
dirtytrack.{name}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_that_of_the_package() -> None:
    """It stands in one place."""
    assert dirtytrack.__version__ == metadata.version("dirtytrack")
