"""The commits of many processes: small files, each made once, with a number."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from dirtytrack.errors import BusyError

_NAME = re.compile(r"(\d{10,})\.json")
_FOLDER = "commits"


class Commits:
    """The commits below a directory. A file that is not whole, or damaged, counts as none."""

    def __init__(self, path: Path) -> None:
        self._folder = path / _FOLDER

    def numbers(self) -> list[int]:
        """The numbers that are taken, ascending."""
        try:
            names = [one.name for one in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(int(found[1]) for found in map(_NAME.fullmatch, names) if found)

    def read(self, number: int) -> dict[str, Any] | None:
        """What was committed under a number; None: nothing that is whole."""
        try:
            digest, _, data = self._file(number).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        if digest.decode("ascii", "replace") != _digest(data):
            return None
        found: dict[str, Any] = json.loads(data)
        return found

    def make(self, number: int, content: dict[str, Any]) -> None:
        """Makes a commit: it is on the disk when this returns.

        Raises:
            BusyError: somebody else has made one of this number.
            OSError: as the system says; there is none.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        data = json.dumps(content, separators=(",", ":")).encode()
        path = self._file(number)
        try:
            file = path.open("xb")
        except FileExistsError:
            raise BusyError(
                errno.EBUSY,
                f"commit state {number} to {self._folder}",
                remedy="Another run has committed one of this number: let one run at a time write there.",
            ) from None
        try:
            with file:
                file.write(f"{_digest(data)}\n".encode() + data)
                file.flush()
                os.fsync(file.fileno())
            _sync(self._folder)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def remove(self, number: int) -> None:
        """Removes one, if it is there."""
        self._file(number).unlink(missing_ok=True)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:010d}.json"


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
