"""What ``make dist`` built, tried as a user would: ``smoke.py DIRECTORY``, exit code 0 only if all is well.

The wheel was built from the sdist (as ``python -m build`` does), so that an sdist which lacks a source has
failed already. Needs the package index, for cffi.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

WHEEL_NAME = re.compile(r"dirtytrack-[^-]+-cp311-abi3-[^-]*linux[^-]*\.whl")
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
    problems = []
    if not WHEEL_NAME.fullmatch(wheel.name):
        problems.append(f"{wheel.name}: the name does not say cp311-abi3 and linux")
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
    sources = [path for pattern in ("*.c", "**/*.h", "cdef.txt") for path in native.glob(pattern)]
    wanted = {f"dirtytrack/native/{path.relative_to(native)}" for path in sources if path.name != "_core.c"}
    problems = [f"{sdist.name}: {name} is missing" for name in sorted(wanted - names)]
    if "dirtytrack/native/_core.c" in names:
        problems.append(f"{sdist.name}: holds the generated native/_core.c")
    return problems


def try_installed(wheel: Path) -> None:
    """Install the wheel in a clean environment and use it from outside of the checkout.

    Raises:
        subprocess.CalledProcessError: a step failed; its output has been shown.
    """
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "venv"
        venv.create(home, with_pip=True)
        environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        python, command = str(home / "bin/python"), str(home / "bin/dirtytrack")
        for step in (
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pytest", str(wheel)],
            [python, "-I", str(HERE / "round_trip.py")],
            [command, "doctor"],
            [command, "--version"],
            [python, "-I", "-c", EMBEDDABLE],
            [python, "-W", "error", "-c", WITH_PLUGIN],
        ):
            subprocess.run(step, cwd=directory, env=environment, check=True)


def main(directory: Path) -> int:
    """Check what is in the directory; the exit code."""
    wheels, sdists = sorted(directory.glob("*.whl")), sorted(directory.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        print(
            f"{directory} should hold one wheel and one sdist, and holds {wheels + sdists}", file=sys.stderr
        )
        return 1
    problems = wheel_problems(wheels[0]) + sdist_problems(sdists[0], HERE.parent.parent / "dirtytrack/native")
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    try:
        try_installed(wheels[0].resolve())
    except subprocess.CalledProcessError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{wheels[0].name} and {sdists[0].name} are good")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
