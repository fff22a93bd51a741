"""``make pythons``: the tests on other Pythons, most of them in a tree of Debian's unstable suite.

The tree needs root, debootstrap, and Debian's archive in apt's configuration. It lies in the user's cache and
is made once (a minute or four, 500 MB); remove it to have newer interpreters. Python 3.12, which that suite
no longer has, is tested where this machine has one, in its PATH or of pyenv's. What the tests need besides is
installed for each interpreter by this one's pip, so that the tree needs no network. The extension is the one
that is built here: its ABI is stable, and that it loads there is a part of the test.

Who comes while another run has the same version, or makes the tree, waits for it.

    python tests/_lib/packaging/pythons.py [VERSION ...] [-- PYTEST ARGUMENT ...]
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packaging.requirements import Requirement
from smoke import find_interpreter

ROOT = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dirtytrack-pythons"
TREE = CACHE / "root"
PACKAGES = CACHE / "packages"
VERSIONS = ("3.13", "3.14", "3.15")  # what the suite has
FOUND_HERE = ("3.12",)
PYTEST = ("-m", "pytest", "-p", "no:cacheprovider")
# Mounts are this shell's own, and gone with it.
_INSIDE = """
mount --bind "$TREE" "$TREE" # so that its root is a mount, as a system's is
for at in proc sys dev; do mount --rbind "/$at" "$TREE/$at"; done
mkdir -p "$TREE/src" && mount --bind "$SOURCE" "$TREE/src"
site="$TREE/usr/local/lib/python$VERSION/dist-packages"
mkdir -p "$site" && mount --bind "$PACKAGES" "$site"
exec chroot "$TREE" env --chdir=/src --unset=PYTHONPATH PATH=/usr/bin:/usr/sbin "python$VERSION" "$@"
"""


def main(words: list[str]) -> int:
    """Run pytest on the versions asked for, by default all; 1 if it failed, 2 if this can't be had here."""
    at = words.index("--") if "--" in words else len(words)
    here = {version: found for version in FOUND_HERE if (found := find_interpreter(version))}
    versions, arguments = words[:at] or [*here, *VERSIONS], words[at + 1 :]
    missing = "" if set(versions) <= set(here) else _missing()
    if missing:
        print(f"make pythons: not possible here: {missing}", file=sys.stderr)
        return 2
    if not set(versions) <= set(here):
        with alone("the tree"):
            if not TREE.exists():
                _make_tree()
    results = {}
    for version in versions:
        with alone(f"Python {version}"):
            results[version] = _test(version, here.get(version), arguments)
    for version, code in results.items():
        print(f"Python {version}: {'passed' if code == 0 else f'failed, pytest ended with {code}'}")
    return int(any(results.values()))


@contextmanager
def alone(what: str) -> Iterator[None]:
    """One process at a time is in here for each ``what``; another one says that it waits, and waits."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{what}.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"make pythons: another run has {what}; waiting for its end", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _missing() -> str:
    """What keeps this machine from it, or nothing."""
    if os.geteuid() != 0:
        return "it takes root, for chroot and mounts"
    return "" if shutil.which("debootstrap") else "debootstrap is not installed: apt-get install debootstrap"


def _make_tree() -> None:
    """Have debootstrap make the tree, of the archive that apt uses here."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    archive = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()[0]
    packages = ["gcc", "libc6-dev", "make", "git", "ca-certificates"]
    packages += [f"python{version}-dev" for version in VERSIONS]
    making = CACHE / "being-made"
    shutil.rmtree(making, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", "sid", making, archive]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    making.rename(TREE)


def _test(version: str, interpreter: str | None, arguments: list[str]) -> int:
    """Install what the tests need, and run them, in the tree if need be; pytest's exit code."""
    packages = PACKAGES / version
    shutil.rmtree(packages, ignore_errors=True)
    if interpreter:
        subprocess.run([interpreter, "-m", "venv", "--without-pip", packages], check=True)
        _install(version, packages / f"lib/python{version}/site-packages", ROOT)
        command, given = [str(packages / "bin/python")], {}
    else:
        _install(version, packages, Path("/src"))
        command = ["unshare", "--mount", "sh", "-euc", _INSIDE, "sh"]
        given = {"TREE": str(TREE), "SOURCE": str(ROOT), "PACKAGES": str(packages), "VERSION": version}
    print(f"== Python {version}", flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | given
    command += [*PYTEST, *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode


def _install(version: str, target: Path, source: Path) -> None:
    """Put cffi and the packages of the group "test" into a directory, and where the sources will be."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(41, 16, -1)] + [f"manylinux2014_{machine}"]
    places = [word for tag in tags for word in ("--platform", tag)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", target]
    pip += ["--python-version", version, "--implementation=cp", "--only-binary=:all:", *places]
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["test"]]
    wanted = [f"{one.name}{one.specifier}" for one in map(Requirement, wanted) if _is_for(one, version)]
    while True:  # all together, since they limit each other's versions
        done = subprocess.run([*pip, *wanted], check=False, capture_output=True, text=True)
        lacking = [name for name in wanted if f"No matching distribution found for {name}" in done.stderr]
        if not lacking:
            break
        print(f"{', '.join(lacking)}: there is none for Python {version}")
        wanted = [name for name in wanted if name not in lacking]
    if done.returncode:
        raise SystemExit(done.stderr)
    (target / "dirtytrack-sources.pth").write_text(f"{source}\n", encoding="utf-8")


def _is_for(requirement: Requirement, version: str) -> bool:
    """Whether it is one on that Python; pip asks the one that it runs on."""
    return requirement.marker is None or requirement.marker.evaluate({"python_version": version})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
