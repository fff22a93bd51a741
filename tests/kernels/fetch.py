"""Debian's cloud kernels for x86-64, through this machine's own apt, into a cache outside the tree.

The archive's address is taken from apt's configuration; only the suites are named here. Apt works on lists
and a state of its own below the cache, so the machine's configuration and packages stay as they are, and no
root privileges are needed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Label of the archive in its Release file, and the suites that may hold kernels.
_SUITES = {
    "Debian": ("bookworm", "bookworm-backports", "trixie", "trixie-backports"),
    "Debian-Security": ("bookworm-security", "trixie-security"),
}
_NAME = re.compile(r"linux-(?P<part>image|binary)-(?P<build>\d+\.\d+\.\d+\S*)-cloud-amd64")
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
    """

    name: str
    version: str

    @property
    def release(self) -> tuple[int, ...]:
        """The kernel's version in numbers, such as (6, 12, 43)."""
        return tuple(int(number) for number in re.findall(r"\d+", self.version.partition("-")[0]))

    @property
    def kernel(self) -> str:
        """The kernel's version as text, such as ``6.12.43``."""
        return ".".join(map(str, self.release))


def cache() -> Path:
    """The directory for packages, images and logs; made on first use."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(home) / "dirtytrack-kernels"
    path.mkdir(parents=True, exist_ok=True)
    return path


def need(*programs: str) -> None:
    """Raise UnavailableError unless every program is there."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    os.environ["PATH"] = path  # mke2fs is not on every plain user's path
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise UnavailableError(f"not installed: {', '.join(missing)}")


def packages() -> list[Package]:
    """Every cloud kernel that the archive serves, oldest first."""
    need("apt-get", "apt-cache", "dpkg-deb")
    root = _apt_root()
    _update(root)
    names = [name for name in _run(root, "apt-cache", "pkgnames", "linux-").split() if _NAME.fullmatch(name)]
    binaries = {name for name in names if _part(name) == "binary"}
    # Where there is a linux-binary package, the linux-image package of the same build is empty.
    names = [name for name in names if name.replace("-image-", "-binary-") not in binaries - {name}]
    if not names:
        raise UnavailableError("apt serves no cloud kernels")
    shown = _run(root, "apt-cache", "show", *sorted(names))
    found = {Package(name, version) for name, version in _stanzas(shown)}
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
    if target.exists():
        return target
    target.parent.mkdir(exist_ok=True)
    root = _apt_root()
    work = root / "download"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    _run(root, "apt-get", "download", f"{package.name}={package.version}", cwd=work)
    (archive,) = work.iterdir()
    partial = target.with_suffix(".partial")
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as unpack:
        assert unpack.stdout is not None
        with tarfile.open(fileobj=unpack.stdout, mode="r|") as tar:
            for member in tar:
                if _IMAGE.fullmatch(member.name):
                    content = tar.extractfile(member)
                    assert content is not None
                    partial.write_bytes(content.read())
    shutil.rmtree(work)
    if not partial.exists():
        raise UnavailableError(f"{package.name} {package.version} holds no kernel image")
    return partial.rename(target)


def _part(name: str) -> str:
    match = _NAME.fullmatch(name)
    assert match is not None
    return match["part"]


def _stanzas(text: str) -> Iterator[tuple[str, str]]:
    """Name and version of each stanza that ``apt-cache show`` prints."""
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version): (.*)$", stanza, re.MULTILINE))
        if fields:
            yield fields["Package"], fields["Version"]


def _apt_root() -> Path:
    root = cache() / "apt"
    for part in ("lists/partial", "archives/partial"):
        (root / part).mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    return root


def _update(root: Path) -> None:
    """Renew the package lists; without the network the old ones will do, if there are any."""
    stamp = root / "updated"
    if stamp.exists() and time.time() - stamp.stat().st_mtime < _LISTS_SECONDS:
        return
    (root / "debian.sources").write_text("\n".join(_sources()))
    try:
        _run(root, "apt-get", "update")
    except UnavailableError:
        if not stamp.exists():
            raise
    else:
        stamp.touch()


def _sources() -> Iterator[str]:
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
            yield "Architectures: amd64"
            yield f"Signed-By: {keyrings[0]}\n" if keyrings else ""


def _run(root: Path, *command: str, cwd: Path | None = None) -> str:
    """Run a command of apt on the private state."""
    settings = {
        "Dir::Etc::sourcelist": root / "debian.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": root,
        "Dir::State::status": root / "status",
        "Dir::Cache": root,
        "APT::Architecture": "amd64",
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
