"""S3 and what is compatible, GCS, Azure and memory: by obstore, an extra, whose errors become OSErrors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from dirtytrack.checkpoint.store.bucket import Bucket, Found, check_whole
from dirtytrack.errors import ForkedError
from dirtytrack.native import lib

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PAGE = 1000  # objects in a page of a listing, as all services have it
_SHOWN = 300  # characters of what a service says
_ANSWER = re.compile(r"status code: ([0-9]{3} [A-Za-z ]+)")
_IN_FLIGHT = 4  # parts of an upload
_CREDENTIALS = (
    "check that the credentials which obstore finds in the environment, or that store_options= gives, may "
    "read and write here"
)
_NO_BUCKET = "there is no such bucket or container, or not for these credentials: make it first"


class ObstoreBucket:
    """See `Bucket`. It is of no use to a forked child, where obstore's threads are missing."""

    def __init__(
        self, place: str, store: Any, prefix: str = "", reopen: Callable[[str], ObstoreBucket] | None = None
    ) -> None:
        """Takes a store of obstore, and of it what begins with a prefix; *reopen* gives another URL's."""
        import obstore  # an extra

        self.place = place
        self._store, self._obstore, self._prefix = store, obstore, prefix
        self._reopen = reopen
        self._process = lib.dt_address_space()

    def put_new(self, key: str, data: Buffer) -> bool:
        """See `Bucket`."""
        try:
            with self._naming(key):
                self._obstore.put(self._store, self._prefix + key, bytes(data), mode="create")
        except FileExistsError:
            return False
        return True

    def put(self, key: str, data: Buffer) -> None:
        """See `Bucket`."""
        with self._naming(key):
            self._obstore.put(self._store, self._prefix + key, memoryview(data), use_multipart=False)

    def upload(self, key: str, pieces: Iterator[Buffer], part_bytes: int) -> None:
        """See `Bucket`."""
        with self._naming(key):
            self._obstore.put(
                self._store,
                self._prefix + key,
                pieces,
                chunk_size=part_bytes,
                max_concurrency=_IN_FLIGHT,
                use_multipart=True,
            )

    def copy_from(self, other: Bucket, key: str) -> None:
        """See `Bucket`."""
        place = _common(self.place, other.place)
        if place is None or self._reopen is None or not isinstance(other, ObstoreBucket):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), f"{other.place}/{key}")
        above = self._reopen(place)
        begins = len(place) + 1
        with other._naming(key):
            self._obstore.copy(
                above._store,
                above._prefix + f"{other.place}/{key}"[begins:],
                above._prefix + f"{self.place}/{key}"[begins:],
            )

    def get(self, key: str) -> bytes:
        """See `Bucket`."""
        with self._naming(key):
            found = self._obstore.get(self._store, self._prefix + key)
            check_whole(int(found.meta["size"]))
            return bytes(found.bytes())

    def get_range(self, key: str, start: int, stop: int) -> Buffer:
        """See `Bucket`."""
        with self._naming(key):
            found: Buffer = self._obstore.get_range(self._store, self._prefix + key, start=start, end=stop)
            return found

    def size(self, key: str) -> int:
        """See `Bucket`."""
        with self._naming(key):
            return int(self._obstore.head(self._store, self._prefix + key)["size"])

    def first_page(self, prefix: str) -> list[Found]:
        """See `Bucket`."""
        for page in self._pages(prefix):
            return page
        return []

    def find(self, prefix: str) -> Iterator[Found]:
        """See `Bucket`."""
        for page in self._pages(prefix):
            yield from page

    def delete(self, keys: Sequence[str]) -> None:
        """See `Bucket`."""
        for start in range(0, len(keys), _PAGE):
            some = [self._prefix + key for key in keys[start : start + _PAGE]]
            with self._naming(keys[start]):
                try:
                    self._obstore.delete(self._store, some)
                except FileNotFoundError:  # some services say so, of one or of the first: each for itself
                    self._delete_each(some)

    def _delete_each(self, keys: Sequence[str]) -> None:
        for key in keys:
            with suppress(FileNotFoundError):
                self._obstore.delete(self._store, key)

    def _pages(self, prefix: str) -> Iterator[list[Found]]:
        with self._naming(prefix):
            pages = iter(self._obstore.list(self._store, self._prefix + prefix, chunk_size=_PAGE))
        while True:
            try:
                with self._naming(prefix):
                    page = next(pages, None)
            except FileNotFoundError as error:
                raise FileNotFoundError(errno.ENOENT, _NO_BUCKET, self.place) from error
            if page is None:
                return
            yield [
                Found(one["path"][len(self._prefix) :], one["size"], one["last_modified"].timestamp())
                for one in page
            ]

    @contextmanager
    def _naming(self, key: str) -> Iterator[None]:
        # What obstore raises, as an OSError of this object.
        if not lib.dt_is_address_space(self._process):
            raise ForkedError(f"{self.place} was opened by another process: open it again in this one")
        try:
            yield
        except (OSError, ForkedError) as error:
            if isinstance(error, FileNotFoundError):
                told = _NO_BUCKET if _is_about_bucket(error) else os.strerror(errno.ENOENT)
                raise self._error(FileNotFoundError, errno.ENOENT, told, key) from error
            raise
        except Exception as error:
            kind, code, told = _translate(error)
            raise self._error(kind, code, told, key) from error

    def _error(self, kind: type[OSError], code: int, told: str, key: str) -> OSError:
        return kind(code, told, f"{self.place}/{key}".rstrip("/"))


def _translate(error: Exception) -> tuple[type[OSError], int, str]:
    from obstore import exceptions

    told = said(error)
    if isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError):
        return FileExistsError, errno.EEXIST, os.strerror(errno.EEXIST)
    refused = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
    if refused or told.startswith(("401", "403")):
        return PermissionError, errno.EACCES, f"{told}: {_CREDENTIALS}"
    if _is_about_bucket(error):
        return FileNotFoundError, errno.ENOENT, _NO_BUCKET
    if "builder error" in told:
        return OSError, errno.EPROTO, f"{told}. An endpoint of plain http needs store_options allow_http=true"
    return OSError, errno.EIO, told


def _common(one: str, other: str) -> str | None:
    # The URL above both; None: they have not even a bucket in common.
    parts = []
    for mine, its in zip(one.split("/"), other.split("/"), strict=False):
        if mine != its:
            break
        parts.append(mine)
    return "/".join(parts) if len(parts) > 2 else None


def _is_about_bucket(error: Exception) -> bool:
    return any(word in str(error) for word in ("NoSuchBucket", "ContainerNotFound", "bucket does not exist"))


def said(error: BaseException) -> str:
    """What obstore says of an error, in one line: without the rest of it, which is for who debugs obstore."""
    text = str(error)
    if (answer := _ANSWER.search(text)) is not None:
        code, message = (re.search(f"<{tag}>([^<]*)</{tag}>", text) for tag in ("Code", "Message"))
        return ": ".join(part for part in (answer[1], code and code[1], message and message[1]) if part)
    told = " ".join(text.partition("\n\nDebug source:")[0].split())
    return told if len(told) <= _SHOWN else f"{told[: _SHOWN - 3]}..."
