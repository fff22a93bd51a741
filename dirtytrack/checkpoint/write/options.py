"""What a Checkpointer is told: checked before anything is touched."""

from __future__ import annotations

import errno
import json
import math
import operator
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex, TypedDict

from dirtytrack.checkpoint.format.layout import check_name
from dirtytrack.checkpoint.format.structures import BLOCK, MAX_DESCRIPTION
from dirtytrack.checkpoint.write.compression import Compression, CompressionName
from dirtytrack.tracking import Region, Session, refuse_overlaps, resolve

_MOST_STAGING = 1 << 30
_LEAST_STAGING = 1 << 26
_MAX_META = MAX_DESCRIPTION // 2


class Keywords(TypedDict, total=False):
    """The keyword arguments that all ways to make a Checkpointer have in common."""

    session: Session | None
    keep: int | None
    compression: CompressionName
    fsync: bool
    staging_bytes: int | None
    max_pause: float | None


@dataclass(frozen=True)
class Options:
    """The same, checked.

    Raises:
        TypeError, ValueError: naming the argument.
        ImportError: without what the compression needs.
    """

    session: Session | None = None
    keep: int | None = None
    compression: CompressionName = "auto"
    fsync: bool = True
    staging_bytes: int | None = None
    max_pause: float | None = None

    def __post_init__(self) -> None:
        if self.session is not None and not isinstance(self.session, Session):
            raise TypeError(f"session is a dirtytrack.Session, not {self.session!r}")
        for name in ("keep", "staging_bytes"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, SupportsIndex):
                raise TypeError(f"{name} is a whole number, not {value!r}")
            object.__setattr__(self, name, None if value is None else operator.index(value))
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"keep={self.keep}: at least one checkpoint has to stay; None keeps all")
        Compression(self.compression)
        if self.staging_bytes is not None and self.staging_bytes < BLOCK:
            raise ValueError(f"staging_bytes={self.staging_bytes}: at least one block of {BLOCK} bytes")
        if not isinstance(self.max_pause, int | float | None):
            raise TypeError(f"max_pause is a number of seconds, not {self.max_pause!r}")
        if self.max_pause is not None and not 0 <= self.max_pause < math.inf:
            raise ValueError(f"max_pause={self.max_pause}: seconds, from 0 on; None sets no bound")

    def staging(self, nbytes: int) -> int:
        """Bytes of staging memory for regions of so many; never more than can be used."""
        wanted = min(max(nbytes // 4, _LEAST_STAGING), _MOST_STAGING)
        return min(self.staging_bytes or wanted, -(-nbytes // BLOCK) * BLOCK + BLOCK)


def check_path(path: os.PathLike[str] | str) -> Path:
    """The directory of a chain.

    Raises:
        TypeError: not a path.
        NotADirectoryError: something else is there.
    """
    checked = Path(path).absolute()
    if checked.exists() and not checked.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, "a chain of checkpoints is a directory of files", str(checked)
        )
    return checked


def check_regions(regions: Mapping[str, object]) -> dict[str, object]:
    """The memory of each name; each is memory that can be tracked, and none of it is another one's too.

    Raises:
        TypeError, ValueError: not a mapping, empty, a bad name, memory that `Session.track` would refuse, or
            that two names share.
    """
    if not isinstance(regions, Mapping):
        raise TypeError(f"regions is a mapping of names to memory, not {type(regions).__name__}")
    if not regions:
        raise ValueError("there is no region: name at least one piece of memory")
    ranges = []
    for name, memory in regions.items():
        check_name(name)
        try:
            found = memory if isinstance(memory, Region) else resolve(memory)
        except (TypeError, ValueError) as error:
            raise type(error)(f"region {name!r}: {error}") from None
        ranges.append((found.address, found.nbytes, name))
    refuse_overlaps(ranges)
    return dict(regions)


def check_meta(meta: Any) -> str:
    """The meta as JSON text.

    Raises:
        TypeError: it holds something that is not JSON, or keys that are not str.
        ValueError: it holds NaN or infinity, itself, or too much.
    """
    _check_keys(meta, "meta")
    try:
        encoded = json.dumps(meta, allow_nan=False)
    except TypeError as error:
        raise TypeError(
            f"meta must be JSON (None, bool, int, float, str, list, dict with str keys): {error}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"meta must be JSON: {error}") from None
    if len(encoded) > _MAX_META:
        raise ValueError(
            f"meta of {len(encoded)} bytes: at most {_MAX_META}; large data belongs into a region"
        )
    return encoded


def _check_keys(value: Any, where: str, depth: int = 0) -> None:
    if depth > 100:
        raise ValueError(f"{where} is nested more than 100 deep, or in itself")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(
                    f"{where} has the key {key!r}: keys of JSON are str, and it would come back as one"
                )
            _check_keys(item, f"{where}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            _check_keys(item, f"{where}[{place}]", depth + 1)


def check_pause(pause: Any) -> AbstractContextManager[object] | None:
    """The pause.

    Raises:
        TypeError: it is no context manager.
    """
    if pause is not None and not (hasattr(type(pause), "__enter__") and hasattr(type(pause), "__exit__")):
        raise TypeError(f"pause is a context manager that stops the writers, not {pause!r}")
    checked: AbstractContextManager[object] | None = pause
    return checked
