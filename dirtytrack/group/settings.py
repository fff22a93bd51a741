"""What a process of a group was given, checked: where its parts go, and where the group is."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dirtytrack.checkpoint import Checkpointer, Save
from dirtytrack.checkpoint.records import Keep, Keywords, Options, Root, check_regions
from dirtytrack.errors import ChainError, CheckpointError
from dirtytrack.group.record import RUN_NAME
from dirtytrack.tracking import Region, resolve

_GRACE_PERIOD = 3600.0  # seconds, of an object store

_logger = logging.getLogger("dirtytrack.group")


@dataclass(frozen=True)
class Settings:
    """What one process of a group was given, checked.

    Attributes:
        regions: memory by name.
        local: where this process writes.
        root: where the group is, which all see; the mirror, if there is one.
        mirror: its URL.
        timeout: seconds without progress after which waiting for the other processes ends; None: never.
        keep: which states stay; None: all.
        grace_period: seconds for which what is superfluous stays.
        keywords: of the process's Checkpointer.
    """

    regions: Mapping[str, object]
    local: Root
    root: Root
    mirror: str | None
    timeout: float | None
    keep: Keep | None
    grace_period: float
    keywords: Keywords

    @classmethod
    def of(cls, path: Any, regions: Mapping[str, object], timeout: float | None, keywords: Keywords) -> Self:
        """Checks everything, and touches nothing.

        Raises:
            TypeError, ValueError, ImportError: as for `Checkpointer`.
        """
        options = Options.of(keywords, "GroupCheckpointer.open")
        if not isinstance(timeout, int | float | None) or isinstance(timeout, bool):
            raise TypeError(f"timeout is a number of seconds, or None, not {timeout!r}")
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout={timeout}: seconds, from 0 on; None sets no bound")
        local = Root.of(path, None if options.mirror else options.store_options, fsync=options.fsync)
        root = Root.of(options.mirror or path, options.store_options, fsync=options.fsync)
        checked = check_regions(regions)
        grace_period = grace_of(root, options)
        return cls(checked, local, root, options.mirror, timeout, options.policy, grace_period, keywords)

    @property
    def place(self) -> str:
        """Of the group, for messages."""
        return str(self.root.place)

    def start_chain(self, folder: str) -> Checkpointer:
        """Begins the chain of this process.

        Raises:
            As `Checkpointer`.
        """
        return Checkpointer(self.local.below(folder), self.regions, **self._keywords_of(folder))

    def sizes(self) -> dict[str, int]:
        """Bytes of each region."""
        return {
            name: (memory if isinstance(memory, Region) else resolve(memory, empty=True)).nbytes
            for name, memory in self.regions.items()
        }

    def branch(self, source: str, at: str, folder: str, limit: int | None) -> bool:
        """Begins the chain of this process with a state of another folder; says whether it could.

        Args:
            source: that folder.
            at: identifier of the state there.
            folder: of the chain of this process.
            limit: bytes that its files may take. None: as many as they do.
        """
        lock = self.keywords.get("lock", "record")
        try:
            self.root.branch(source, at, folder, lock, limit)
        except (ChainError, OSError) as error:
            _logger.info("%s/%s begins with a base: %s", self.place, folder, error)
            return False
        if self.mirror is not None:
            with suppress(ChainError, OSError):  # what this machine does not have the mirror has
                self.local.branch(source, at, folder, lock, limit)
        return True

    def resume_chain(self, folder: str, at: str) -> Checkpointer:
        """Restores a state of the chain of this process, and goes on with it.

        Raises:
            As `Checkpointer.resume`.
        """
        place = self.local.below(folder)
        return Checkpointer.resume(place, self.regions, at=at, strict=False, **self._keywords_of(folder))

    def _keywords_of(self, folder: str) -> Keywords:
        mine: Keywords = {**self.keywords}
        if self.keep is not None:
            mine["keep"] = self.keep.newest  # of the older ones the states decide
        if self.mirror is not None:
            mine["mirror"] = f"{self.mirror.rstrip('/')}/{folder}"
        return mine

    def is_durable(self, checkpoints: Checkpointer, part: Save) -> bool:
        """Whether a part that this process has committed is where the others can read it.

        Raises:
            CheckpointError: it never will be.
            OSError: as the mirror says.
        """
        mirror = checkpoints.statistics().mirror
        if mirror is None:
            return True
        if mirror.checkpoint < part.number:
            return False
        if not Root(mirror.place, self.root.options).has_checkpoint(part.number):
            told = "the mirror was too slow: it has only what came after this checkpoint"
            raise CheckpointError(errno.ENODATA, told, mirror.place, (part.number,))
        return True

    def forget_older(self, run: str) -> None:
        """Removes from this machine what earlier runs have left there, and the mirror has."""
        if self.mirror is None or not isinstance(self.local.place, Path):
            return
        with suppress(OSError):
            for folder in (self.local.place / "parts").iterdir():
                is_run = RUN_NAME.fullmatch(folder.name)  # what else is there is not ours
                if is_run and folder.name.partition("-")[0] < run.partition("-")[0]:
                    shutil.rmtree(folder, ignore_errors=True)


def grace_of(root: Root, options: Options) -> float:
    """Seconds for which what is superfluous stays: of a directory none, unless somebody says so."""
    default = _GRACE_PERIOD if root.is_remote else 0.0
    return default if options.grace_period is None else options.grace_period
