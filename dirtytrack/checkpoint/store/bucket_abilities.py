"""What an object store can do for a chain of checkpoints: found by trying, on objects of its own."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from dirtytrack.checkpoint.store.bucket import Bucket
from dirtytrack.checkpoint.store.commits import PROBES
from dirtytrack.checkpoint.store.uploads import PART_BYTES
from dirtytrack.kernel.support import Check

_DATA = b"dirtytrack" * 500
_ELSEWHERE = "choose another place, or mend this one"
_NO_CONDITIONS = (
    "it ignores If-None-Match: * and replaces the object, so that two writers would destroy each other's "
    "checkpoints"
)


class _Ability(NamedTuple):
    # What is tried, below a prefix of its own, and what follows if it works and if not; a remedy where a
    # chain needs it.
    name: str
    attempt: Callable[[Bucket, str], bool]
    works: str
    lacks: str
    remedy: str = ""


def try_bucket(bucket: Bucket) -> Iterator[Check]:
    """Tries what a chain of checkpoints needs of a bucket. What is there is not touched.

    Raises:
        ImportError, ForkedError: it can't even be asked.
    """
    prefix = f"{PROBES}{secrets.token_hex(16)}/"
    try:
        for ability in _ABILITIES:
            try:
                works, told = ability.attempt(bucket, prefix), ""
            except OSError as error:
                works, told = False, f" ({error.strerror or error})"
            detail = ability.works if works else f"{ability.lacks}{told}"
            yield Check(
                ability.name,
                works or (False if ability.remedy else None),
                detail,
                ability.remedy * (not works),
            )
            if not works and ability.name == "write":
                return
    finally:
        with suppress(OSError):
            bucket.delete([one.key for one in bucket.find(prefix)])


def _write(bucket: Bucket, prefix: str) -> bool:
    bucket.put(f"{prefix}1", _DATA)
    return True


def _read(bucket: Bucket, prefix: str) -> bool:
    return bucket.get(f"{prefix}1") == _DATA and bytes(bucket.get_range(f"{prefix}1", 10, 30)) == _DATA[10:30]


def _put_if_absent(bucket: Bucket, prefix: str) -> bool:
    bucket.put_new(f"{prefix}2", _DATA)
    return not bucket.put_new(f"{prefix}2", b"another one") and bucket.get(f"{prefix}2") == _DATA


def _upload(bucket: Bucket, prefix: str) -> bool:
    data = os.urandom(PART_BYTES)
    bucket.upload(f"{prefix}3", iter([data, _DATA]), PART_BYTES)
    return bytes(bucket.get_range(f"{prefix}3", PART_BYTES - 10, PART_BYTES + 10)) == data[-10:] + _DATA[:10]


def _list(bucket: Bucket, prefix: str) -> bool:
    return {one.key for one in bucket.find(prefix)} == {f"{prefix}{name}" for name in (1, 2, 3)}


def _order(bucket: Bucket, prefix: str) -> bool:
    for name in range(9, 3, -1):
        bucket.put(f"{prefix}{name}", b"")
    found = [one.key for one in bucket.first_page(prefix)]
    return len(found) > 1 and found == sorted(found)


def _remove(bucket: Bucket, prefix: str) -> bool:
    bucket.delete([f"{prefix}1", f"{prefix}nothing"])
    try:
        bucket.get(f"{prefix}1")
    except FileNotFoundError:
        return True
    raise OSError(errno.EIO, "it is still there")


_ABILITIES = (
    _Ability("write", _write, "objects can be made", "no object can be made", _ELSEWHERE),
    _Ability(
        "read", _read, "objects can be read, by ranges too", "what was put is not given back", _ELSEWHERE
    ),
    _Ability(
        "put if absent",
        _put_if_absent,
        "of two writers one commits",
        _NO_CONDITIONS,
        "use a store with conditional writes, or a directory",
    ),
    _Ability(
        "upload", _upload, "long files are uploaded in parts", "long files can't be uploaded", _ELSEWHERE
    ),
    _Ability("list", _list, "all objects are listed", "a listing is not complete", _ELSEWHERE),
    _Ability(
        "order",
        _order,
        "the newest commit is found by one request",
        "all commits are listed to find the newest",
    ),
    _Ability(
        "remove",
        _remove,
        "what a compaction makes superfluous is removed",
        "nothing can be removed, so a chain only grows",
    ),
)
