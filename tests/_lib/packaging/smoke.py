"""What ``make wheel`` built, tried as a user would: ``smoke.py DIRECTORY``, exit code 0 only if all is well.

The wheel was built from the sdist (as ``python -m build`` does), so that an sdist which lacks a source has
failed already. It is tried with every interpreter that it is for; those that this machine does not have are
named. Needs the package index, for cffi.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEEL_NAME = re.compile(r"dirtytrack-[^-]+-cp311-abi3-manylinux_[^-]*\.whl")
FOR_WHEEL = ("3.11", "3.12", "3.13")
FOR_SDIST = ("3.14t",)  # free-threaded: no stable ABI, so a build of its own
PLUGIN = "pytest_dirtytrack.py"
EMBEDDABLE = (
    "import dirtytrack, os; files = [*dirtytrack.get_sources(), dirtytrack.get_include() + '/dirtytrack.h']; "
    "assert all(map(os.path.exists, files))"
)
# Nor may pytest warn of the package, which it would like to rewrite, and finds imported already.
WITH_PLUGIN = (
    "import sys, dirtytrack, pytest; sys.exit(pytest.main(['-q', '-W', 'error', '--fixtures']) not in (0, 5))"
)
HERE = Path(__file__).resolve().parent


def wheel_problems(wheel: Path) -> list[str]:
    """What is wrong with a wheel's name and contents."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        native = {name: archive.read(name) for name in names if name.endswith(".so")}
    home = sys.base_prefix  # its libraries would be looked for there
    problems = [f"{wheel.name}: {name} names {home}" for name in native if home.encode() in native[name]]
    if not WHEEL_NAME.fullmatch(wheel.name):
        problems.append(f"{wheel.name}: the name does not say cp311-abi3 and manylinux")
    wanted = ("py.typed", "native/_core.abi3.so", "native/_core.pyi", "native/include/dirtytrack.h")
    needed = [PLUGIN, *(f"dirtytrack/{name}" for name in wanted)]
    problems += [f"{wheel.name}: {name} is missing" for name in needed if name not in names]
    if "dirtytrack/native/_core.c" in names:
        problems.append(f"{wheel.name}: holds the generated native/_core.c")
    ours = ("dirtytrack/", "dirtytrack-", PLUGIN)
    foreign = {name.split("/")[0] for name in names if not name.startswith(ours)}
    return problems + [f"{wheel.name}: {name} does not belong in it" for name in sorted(foreign)]


def sdist_problems(sdist: Path, native: Path) -> list[str]:
    """What is wrong with an sdist, whose native sources should be those in *native*."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = [path for pattern in ("*/*.[ch]", "binding/*.*") for path in native.glob(pattern)]
    wanted = {f"dirtytrack/native/{path.relative_to(native)}" for path in sources}
    problems = [f"{sdist.name}: {name} is missing" for name in sorted(wanted - names)]
    if "dirtytrack/native/_core.c" in names:
        problems.append(f"{sdist.name}: holds the generated native/_core.c")
    return problems


def find_interpreter(version: str) -> str | None:
    """A Python of that version ("3.12", "3.14t") that can make virtual environments, or None."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    places = [shutil.which(name), Path(sys.base_prefix) / "bin" / name]
    places += sorted(pyenv.glob(f"versions/*/bin/{name}"), reverse=True)
    return next((str(path) for path in places if path and _is(path, version)), None)


def _is(path: str | Path, version: str) -> bool:
    # A file of that name need not be one: pyenv puts a script into the PATH that fails.
    asked = (
        "import ensurepip, sys, sysconfig as s; "
        "print(s.get_python_version() + 't' * bool(s.get_config_var('Py_GIL_DISABLED')))"
    )
    try:
        found = subprocess.run([path, "-I", "-c", asked], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return found.returncode == 0 and found.stdout.strip() == version


def try_installed(interpreter: str, package: Path) -> None:
    """Install the wheel or sdist in a clean environment and use it from outside of the checkout.

    Raises:
        SystemExit: a step failed, with what it printed.
    """
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "venv"
        environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        python, command = str(home / "bin/python"), str(home / "bin/dirtytrack")
        for step in (
            [interpreter, "-I", "-m", "venv", str(home)],
            [
                python,
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
                "pytest",
                f"{package}[checkpoint]",
            ],
            [python, "-I", str(HERE / "round_trip.py")],
            [command, "doctor"],
            [command, "--version"],
            [python, "-I", "-c", EMBEDDABLE],
            [python, "-W", "error", "-c", WITH_PLUGIN],
        ):
            done = subprocess.run(
                step, cwd=directory, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise SystemExit(f"{done.stdout}{done.stderr}{step} failed with {interpreter}")


def try_everywhere(wheel: Path, sdist: Path) -> list[str]:
    """Try the wheel, and the sdist where the wheel is not for; the versions that are not here.

    Raises:
        SystemExit: as `try_installed`.
    """
    missing = []
    for version, package in [*((one, wheel) for one in FOR_WHEEL), *((one, sdist) for one in FOR_SDIST)]:
        interpreter = find_interpreter(version)
        if interpreter is None:
            missing.append(version)
            continue
        try_installed(interpreter, package)
        print(f"{package.name} works with Python {version}", flush=True)
    return missing


def main(directory: Path) -> int:
    """Check what is in the directory; the exit code."""
    wheels, sdists = sorted(directory.glob("*.whl")), sorted(directory.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        print(
            f"{directory} should hold one wheel and one sdist, and holds {wheels + sdists}", file=sys.stderr
        )
        return 1
    problems = wheel_problems(wheels[0]) + sdist_problems(sdists[0], HERE.parents[2] / "dirtytrack/native")
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    missing = try_everywhere(wheels[0].resolve(), sdists[0].resolve())
    print(f"{wheels[0].name} and {sdists[0].name} are good")
    if missing:
        print(f"not tried, for they are not on this machine: Python {', '.join(missing)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
