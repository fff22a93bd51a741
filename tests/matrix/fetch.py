"""Debian's kernels and Python, through this machine's own apt, into a cache outside the tree.

The archive's address is taken from apt's configuration; only the suites are named here. Apt works on lists
and a state of its own below the cache, so the machine's configuration and packages stay as they are, and no
root privileges are needed.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matrix.machine import Machine

# Label of the archive in its Release file, and the suites that may hold kernels.
_SUITES = {
    "Debian": ("bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid", "experimental"),
    "Debian-Security": ("bookworm-security", "trixie-security"),
}
_NAME = r"linux-(image|binary)-\d+\.\d+\.\d+\S*-"
_IMAGE = re.compile(r"\./boot/vmlinuz-[^/]+|\./usr/lib/modules/[^/]+/vmlinuz")
_LISTS_SECONDS = 24 * 3600  # package lists are renewed when they are older


class UnavailableError(Exception):
    """Something that the guests need can't be had on this machine; the text says what."""


@dataclass(frozen=True)
class Package:
    """A Debian package with a kernel image in it.

    Attributes:
        name: of the package.
        version: of the package, such as ``6.12.43-1~bpo12+1``.
        machine: what it is for.
    """

    name: str
    version: str
    machine: Machine

    @property
    def release(self) -> tuple[int, ...]:
        """The kernel's version in numbers, such as (6, 12, 43)."""
        return tuple(int(number) for number in re.findall(r"\d+", self.version.partition("-")[0]))

    @property
    def kernel(self) -> str:
        """The kernel's version as text, such as ``6.12.43``."""
        return ".".join(map(str, self.release))

    @property
    def title(self) -> str:
        """Kernel and machine, such as ``6.12.43 x86-64``."""
        return f"{self.kernel} {self.machine.name}"


def cache() -> Path:
    """The directory for packages, images and logs; made on first use."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(home) / "dirtytrack-kernels"
    path.mkdir(parents=True, exist_ok=True)
    return path


def need(*programs: str) -> None:
    """Raise UnavailableError unless every program is there."""
    os.environ["PATH"] = _path()
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise UnavailableError(f"not installed: {', '.join(missing)}")


def _path() -> str:
    """The path of programs with mke2fs in it, which not every plain user has."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def provide(programs: Mapping[str, str]) -> None:
    """Install what is missing, where that is possible: as root, with apt.

    Args:
        programs: the package that each of them is in.

    Raises:
        UnavailableError: something is missing, and can't be installed.
    """
    missing = [program for program in programs if shutil.which(program, path=_path()) is None]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ("install", "--yes", "--no-install-recommends", *(programs[name] for name in missing))
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for words in (("update",), install):
            command = ["apt-get", "--quiet", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode != 0:
                raise UnavailableError(f"apt-get {words[0]} failed: {done.stderr.strip()}")
    need(*programs)


def packages(machine: Machine) -> list[Package]:
    """Every kernel for the machine that the archive serves, oldest first."""
    fitting = re.compile(_NAME + re.escape(machine.flavour))
    names = _run(machine.architecture, "apt-cache", "pkgnames", "linux-").split()
    names = [name for name in names if fitting.fullmatch(name)]
    binaries = {name for name in names if name.startswith("linux-binary-")}
    # Where there is a linux-binary package, the linux-image package of the same build is empty.
    names = [name for name in names if name.replace("-image-", "-binary-") not in binaries - {name}]
    if not names:
        raise UnavailableError(f"apt serves no kernels for {machine.name}")
    shown = _run(machine.architecture, "apt-cache", "show", *sorted(names))
    found = {Package(name, version, machine) for name, version in _stanzas(shown)}
    return sorted(found, key=lambda package: (package.release, package.version))


def choose(served: list[Package], asked: str) -> Package | None:
    """The newest kernel whose version begins with the numbers asked for, or the oldest of them.

    Args:
        served: what there is, oldest first.
        asked: such as ``6.12``, ``6.12.95``, ``6.12-oldest``, or ``newest`` for the newest of all.
    """
    series, _, which = asked.partition("-")
    numbers = () if series == "newest" else tuple(map(int, series.split(".")))
    fitting = [package for package in served if package.release[: len(numbers)] == numbers]
    return fitting[0 if which == "oldest" else -1] if fitting else None


def image(package: Package) -> Path:
    """The kernel image of *package*, downloaded on first use."""
    target = cache() / "vmlinuz" / f"{package.name}_{package.version}"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        partial = target.with_suffix(".partial")
        for _, content in contents(package, _IMAGE):
            partial.write_bytes(content)
        if not partial.exists():
            raise UnavailableError(f"{package.name} {package.version} holds no kernel image")
        partial.rename(target)
    return target


def contents(package: Package, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """Download a package, and yield name and content of each of its files whose name is *wanted*."""
    with (
        download(package.machine.architecture, f"{package.name}={package.version}") as (archive,),
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as unpack,
        tarfile.open(fileobj=unpack.stdout, mode="r|") as tar,
    ):
        for member in tar:
            if member.isfile() and wanted.fullmatch(member.name):
                content = tar.extractfile(member)
                assert content is not None
                yield member.name, content.read()


@contextmanager
def download(architecture: str, *names: str) -> Iterator[list[Path]]:
    """The archives of packages, as long as the block runs."""
    with tempfile.TemporaryDirectory(dir=cache()) as work:
        _run(architecture, "apt-get", "download", *names, cwd=Path(work))
        yield sorted(Path(work).iterdir())


def closure(architecture: str, suite: str, *names: str) -> list[str]:
    """The packages of a suite with all that they depend on, each as name and version for `download`."""
    words = ("install", "--simulate", "--no-install-recommends", "--target-release", suite)
    told = _run(architecture, "apt-get", *words, *names)
    return [f"{name}={version}" for name, version in re.findall(r"^Inst (\S+) \((\S+)", told, re.MULTILINE)]


def _stanzas(text: str) -> Iterator[tuple[str, str]]:
    """Name and version of each stanza that ``apt-cache show`` prints."""
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version): (.*)$", stanza, re.MULTILINE))
        if fields:
            yield fields["Package"], fields["Version"]


@functools.cache
def _apt_root(architecture: str) -> Path:
    """A state of apt's own, with lists not older than a day; without the network older ones will do."""
    need("apt-get", "apt-cache", "dpkg-deb")
    root = cache() / f"apt-{architecture}"
    for part in ("lists/partial", "archives/partial"):
        (root / part).mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    stamp = root / "updated"
    if stamp.exists() and time.time() - stamp.stat().st_mtime < _LISTS_SECONDS:
        return root
    (root / "debian.sources").write_text("\n".join(_sources(architecture)))
    try:
        _apt(root, architecture, "apt-get", "update")
    except UnavailableError:
        if not stamp.exists():
            raise
    else:
        stamp.touch()
    return root


def _sources(architecture: str) -> Iterator[str]:
    """Our suites at the addresses from which this machine has its own."""
    lines = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(LABEL) $(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
        ],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    addresses = dict(line.split(maxsplit=1) for line in lines if line)
    if "Debian" not in addresses:
        raise UnavailableError(
            "apt on this machine knows no Debian archive; on Debian, run apt-get update first"
        )
    keyrings = sorted(Path("/usr/share/keyrings").glob("debian-archive-keyring.*"))
    for label, suites in _SUITES.items():
        if label in addresses:
            yield "Types: deb"
            yield f"URIs: {addresses[label]}"
            yield f"Suites: {' '.join(suites)}"
            yield "Components: main"
            yield f"Architectures: {architecture}"
            yield f"Signed-By: {keyrings[0]}\n" if keyrings else ""


def _run(architecture: str, *command: str, cwd: Path | None = None) -> str:
    """Run a command of apt on the private state for an architecture."""
    return _apt(_apt_root(architecture), architecture, *command, cwd=cwd)


def _apt(root: Path, architecture: str, *command: str, cwd: Path | None = None) -> str:
    settings = {
        "Dir::Etc::sourcelist": root / "debian.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": root,
        "Dir::State::status": root / "status",
        "Dir::Cache": root,
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "",  # as root it would download as a user who can't write here
        "Acquire::Languages": "none",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    done = subprocess.run(
        [command[0], *options, *command[1:]], capture_output=True, text=True, check=False, cwd=cwd
    )
    if done.returncode != 0:
        raise UnavailableError(f"{' '.join(command[:2])} failed: {done.stderr.strip()}")
    return done.stdout
