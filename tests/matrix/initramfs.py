"""The first files of a kernel that has the drivers of its root file system as modules only."""

from __future__ import annotations

import hashlib
import lzma
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from matrix.fetch import Package, UnavailableError, cache, contents, need
from matrix.system import COMPILER

_SOURCE = Path(__file__).parent / "guest/load_root.c"
_WANTED = ("nvme", "ext4")
_MODULES = re.compile(
    r"\./(usr/)?lib/modules/[^/]+/kernel/"
    r"(arch/[^/]+/)?(crypto|lib|drivers/nvme|fs/(ext4|jbd2|mbcache\.ko))(/.+)?(\.ko)?(\.xz)?"
)


@dataclass(frozen=True)
class Module:
    """A kernel's module, with the names and aliases of what has to be loaded before it."""

    name: str
    content: bytes
    needs: tuple[str, ...]
    aliases: tuple[str, ...]


def initramfs(package: Package) -> Path:
    """An archive with the modules for *package*, and the program that loads them; made once for each."""
    key = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    target = cache() / "vmlinuz" / f"{package.name}_{package.version}-{key}.cpio"
    if target.exists():
        return target
    modules: dict[str, Module] = {}
    # In newer packages the modules are apart from the image.
    apart = replace(package, name=package.name.replace("-binary-", "-modules-"))
    for name, content in contents(apart, _MODULES):
        module = understand(name, content)
        modules |= dict.fromkeys((module.name, *module.aliases), module)
    chosen = list(dict.fromkeys(module for name in _WANTED for module in in_order(modules, name)))
    if missing := set(_WANTED) - {module.name for module in chosen}:
        raise UnavailableError(f"{apart.name} {apart.version} has no {' and no '.join(missing)}")
    files = {"init": _program(), "modules": None}
    files |= {f"modules/{number:02}": module.content for number, module in enumerate(chosen)}
    partial = target.with_suffix(".partial")
    partial.write_bytes(_cpio(files))
    return partial.rename(target)


def understand(name: str, content: bytes) -> Module:
    """What a module says of itself; its name is that of its file."""
    if name.endswith(".xz"):
        content = lzma.decompress(content)

    def told(key: str) -> list[str]:
        found = re.findall(rb"\0" + key.encode() + rb"=([^\0]*)", content)
        return [text.decode() for text in found]

    depends = [word for text in told("depends") for word in text.split(",") if word]
    softly = [word for text in told("softdep") for word in text.partition("post:")[0].split()[1:]]
    stem = Path(name).name.partition(".")[0].replace("-", "_")
    needs = (*(word.replace("-", "_") for word in depends), *softly)
    return Module(stem, content, needs, tuple(told("alias")))


def in_order(modules: Mapping[str, Module], name: str) -> Iterator[Module]:
    """The module after all that it needs; what is not there is built in."""
    if name in modules:
        for need_ in modules[name].needs:
            yield from in_order(modules, need_)
        yield modules[name]


def _program() -> bytes:
    need(COMPILER)
    with tempfile.TemporaryDirectory() as work:
        built = Path(work) / "init"
        subprocess.run([COMPILER, "-std=gnu11", "-Os", "-Wall", "-static", "-o", built, _SOURCE], check=True)
        return built.read_bytes()


def _cpio(files: Mapping[str, bytes | None]) -> bytes:
    """An archive in the kernel's format, "newc"; None is a directory."""
    archive = bytearray()
    for number, (name, content) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        mode, data = (0o40755, b"") if content is None else (0o100755, content)
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
