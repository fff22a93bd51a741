"""One chain of checkpoints that goes from guest to guest and is checked in between.

A guest finds it in its root file system, and says what became of it with its results.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import BinaryIO

import dirtytrack
from matrix import baton

_IN_GUEST = "/home/handed.tar"


class Relay:
    """The chain as the last good guest handed it on.

    Attributes:
        by: who wrote the epochs of the chain, oldest first.
    """

    def __init__(self, work: Path) -> None:
        """The chain lies in *work*, begun by this machine if it can track."""
        self.by: list[str] = []
        self._work = work
        self._chain = work / "chain"
        if dirtytrack.support().works:
            baton.hand_on(self._chain)
            self.by = baton.check(self._chain)

    def pack(self) -> Path:
        """An archive of the chain; an empty one if nobody has begun it."""
        path = self._work / "handed.tar"
        with tarfile.open(path, "w") as archive:
            if self._chain.exists():
                archive.add(self._chain, "chain")
        return path

    def hand_out(self, root: Path) -> None:
        """Put the chain into a root file system."""
        for request in (f"rm {_IN_GUEST}", f"write {self.pack()} {_IN_GUEST}"):
            subprocess.run(["debugfs", "-w", "-R", request, root], check=True, capture_output=True)

    def take_back(self, handed_on: bytes) -> str:
        """Keep the chain in an archive if it is good, and return what is wrong with it otherwise."""
        if not handed_on:
            return "no chain was handed on"
        back = self._work / "back"
        shutil.rmtree(back, ignore_errors=True)
        unpack(io.BytesIO(handed_on), back)
        if not (back / "chain").exists():
            return "the chain is gone" if self._chain.exists() else ""
        try:
            by = baton.check(back / "chain")
        except (AssertionError, dirtytrack.ChainError) as error:
            return f"the chain that it handed on is wrong: {error}"
        if by[: len(self.by)] != self.by:
            return "the chain that it handed on lacks epochs"
        shutil.rmtree(self._chain, ignore_errors=True)
        shutil.move(back / "chain", self._chain)
        self.by = by
        return ""


def unpack(file: BinaryIO, target: Path) -> None:
    """Extract an archive."""
    with tarfile.open(fileobj=file) as archive:
        # Without, later versions of Python warn; the first ones of 3.11 do not have it.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(target)
