"""The options of a Checkpointer, checked before anything is touched."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Self, SupportsIndex, TypedDict, get_args

from dirtytrack.checkpoint.format.structures import BLOCK
from dirtytrack.checkpoint.store import is_object_store
from dirtytrack.checkpoint.store.lock import LockName
from dirtytrack.checkpoint.store.urls import StoreOptions
from dirtytrack.checkpoint.write.compression import Compression, CompressionName
from dirtytrack.checkpoint.write.keep import Keep
from dirtytrack.errors import StoreError
from dirtytrack.tracking import Session

_MOST_STAGING = 1 << 30
_LEAST_STAGING = 1 << 26


class Keywords(TypedDict, total=False):
    """The keyword arguments that all ways to make a Checkpointer have in common."""

    session: Session | None
    keep: int | Keep | None
    compression: CompressionName
    fsync: bool
    lock: LockName
    staging_bytes: int | None
    max_pause: float | None
    store_options: StoreOptions | None
    grace_period: float | None
    mirror: str | None
    mirror_timeout: float | None
    mirror_bandwidth: float | None


@dataclass(frozen=True)
class Options:
    """The same, checked.

    Raises:
        TypeError, ValueError: naming the argument.
        ImportError: without what the compression needs.
    """

    session: Session | None = None
    keep: int | Keep | None = None
    compression: CompressionName = "auto"
    fsync: bool = True
    lock: LockName = "record"
    staging_bytes: int | None = None
    max_pause: float | None = None
    store_options: StoreOptions | None = None
    grace_period: float | None = None
    mirror: str | None = None
    mirror_timeout: float | None = 300.0
    mirror_bandwidth: float | None = None

    @classmethod
    def of(cls, keywords: Keywords, called: str) -> Self:
        """The keywords that somebody gave to what is *called* so.

        Raises:
            TypeError: one of them is none of a Checkpointer's.
            Others: as `Options`.
        """
        known = Keywords.__annotations__
        for name in keywords:
            if name not in known:
                raise TypeError(
                    f"{called}() got an unexpected keyword argument {name!r}: there are {', '.join(known)}"
                )
        return cls(**keywords)

    def __post_init__(self) -> None:
        if self.session is not None and not isinstance(self.session, Session):
            raise TypeError(f"session is a dirtytrack.Session, not {self.session!r}")
        for name in ("keep", "staging_bytes"):
            value = getattr(self, name)
            if value is None or isinstance(value, Keep):
                continue
            if not isinstance(value, SupportsIndex):
                kind = "a whole number or a Keep" if name == "keep" else "a whole number"
                raise TypeError(f"{name} is {kind}, not {value!r}")
            object.__setattr__(self, name, operator.index(value))
        if isinstance(self.keep, int) and self.keep < 1:
            raise ValueError(f"keep={self.keep}: at least one checkpoint has to stay; None keeps all")
        Compression(self.compression)
        if self.lock not in get_args(LockName):
            raise ValueError(f"lock is one of {', '.join(get_args(LockName))}, not {self.lock!r}")
        if self.staging_bytes is not None and self.staging_bytes < BLOCK:
            raise ValueError(f"staging_bytes={self.staging_bytes}: at least one block of {BLOCK} bytes")
        self._check_seconds("max_pause", "None sets no bound")
        self._check_seconds("grace_period", "None is an hour")
        self._check_seconds("mirror_timeout", "None sets no bound")
        if self.mirror is not None and not is_object_store(self.mirror):
            raise StoreError(f"mirror={self.mirror!r}: the URL of an object store, such as s3://bucket/run-1")
        if not isinstance(self.mirror_bandwidth, int | float | None):
            raise TypeError(
                f"mirror_bandwidth is a number of bytes per second, not {self.mirror_bandwidth!r}"
            )
        if self.mirror_bandwidth is not None and not 0 < self.mirror_bandwidth < math.inf:
            raise ValueError(
                f"mirror_bandwidth={self.mirror_bandwidth}: bytes per second; None sets no bound"
            )

    def _check_seconds(self, name: str, none: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, int | float | None):
            raise TypeError(f"{name} is a number of seconds, not {value!r}")
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name}={value}: seconds, from 0 on; {none}")

    @property
    def policy(self) -> Keep | None:
        """What stays; None: everything."""
        return Keep(self.keep) if isinstance(self.keep, int) else self.keep

    def staging(self, nbytes: int) -> int:
        """Bytes of staging memory for regions of so many; never more than can be used."""
        wanted = min(max(nbytes // 4, _LEAST_STAGING), _MOST_STAGING)
        return min(self.staging_bytes or wanted, -(-nbytes // BLOCK) * BLOCK + BLOCK)
