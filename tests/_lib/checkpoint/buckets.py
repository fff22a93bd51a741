"""Buckets for tests: one in plain Python that can be as bad as a real one, and one whose requests fail."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from _lib.checkpoint.faulty_store import Trouble
from dirtytrack.checkpoint.store.bucket import Bucket, Found


class Change(NamedTuple):
    """What a request did: to an object, of which None is left where it was removed."""

    key: str
    data: bytes | None


class ModelBucket:
    """Objects in a dictionary.

    Attributes:
        objects: data and the time of each.
        now: seconds, by its clock.
        requests: how many there were of each kind.
        changes: what they did, in order.
        page: objects in a page of a listing.
        order: of a listing.
        keeps_its_word: not to replace what is put only if absent.
        unlisted: keys that a listing does not have yet.
    """

    place = "model://bucket"

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.now = 1_000_000.0
        self.objects = {key: (data, self.now) for key, data in (objects or {}).items()}
        self.requests: Counter[str] = Counter()
        self.changes: list[Change] = []
        self.page = 1000
        self.order: Callable[[str], Any] = str
        self.keeps_its_word = True
        self.unlisted: set[str] = set()
        self._mutex = threading.RLock()

    def put_new(self, key: str, data: Any) -> bool:
        with self._mutex:
            self.requests["put_new"] += 1
            if key in self.objects and self.keeps_its_word:
                return False
            self._set(key, bytes(data))
            return True

    def put(self, key: str, data: Any) -> None:
        with self._mutex:
            self.requests["put"] += 1
            self._set(key, bytes(data))

    def upload(self, key: str, pieces: Iterator[Any], part_bytes: int) -> None:
        assert part_bytes >= 5 << 20
        data = b"".join(map(bytes, pieces))
        with self._mutex:
            self.requests["upload"] += 1
            self._set(key, data)

    def copy_from(self, other: ModelBucket, key: str) -> None:
        with self._mutex:
            self.requests["copy"] += 1
            self._set(key, other._find(key))

    def get(self, key: str) -> bytes:
        self.requests["get"] += 1
        return self._find(key)

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        self.requests[f"get_range {key}"] += 1
        return self._find(key)[start:stop]

    def size(self, key: str) -> int:
        self.requests["size"] += 1
        return len(self._find(key))

    def first_page(self, prefix: str) -> list[Found]:
        self.requests["list"] += 1
        return self._listed(prefix)[: self.page]

    def find(self, prefix: str) -> Iterator[Found]:
        found = self._listed(prefix)
        for start in range(0, max(len(found), 1), self.page):
            self.requests["list"] += 1
            yield from found[start : start + self.page]

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            with self._mutex:
                self.requests["delete"] += 1
                if self.objects.pop(key, None) is not None:
                    self.changes.append(Change(key, None))

    def _set(self, key: str, data: bytes) -> None:
        self.objects[key] = data, self.now
        self.changes.append(Change(key, data))

    def _find(self, key: str) -> bytes:
        with self._mutex:
            if key not in self.objects:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.place}/{key}")
            return self.objects[key][0]

    def _listed(self, prefix: str) -> list[Found]:
        with self._mutex:
            keys = [key for key in self.objects if key.startswith(prefix) and key not in self.unlisted]
            return [
                Found(key, len(self.objects[key][0]), self.objects[key][1])
                for key in sorted(keys, key=self.order)
            ]


class FaultyBucket:
    """Another bucket, of which requests fail."""

    def __init__(self, bucket: Bucket, trouble: Trouble) -> None:
        self.place = bucket.place
        self._bucket, self._trouble = bucket, trouble

    def put_new(self, key: str, data: Any) -> bool:
        return self._trouble.step("put_new", lambda: self._bucket.put_new(key, data))

    def put(self, key: str, data: Any) -> None:
        self._trouble.step("put", lambda: self._bucket.put(key, data))

    def upload(self, key: str, pieces: Iterator[Any], part_bytes: int) -> None:
        self._trouble.step("upload", lambda: self._bucket.upload(key, pieces, part_bytes))

    def copy_from(self, other: FaultyBucket, key: str) -> None:
        self._trouble.step("copy", lambda: self._bucket.copy_from(other._bucket, key))

    def get(self, key: str) -> bytes:
        return self._trouble.step("get", lambda: self._bucket.get(key))

    def get_range(self, key: str, start: int, stop: int) -> Any:
        return self._trouble.step("get_range", lambda: self._bucket.get_range(key, start, stop))

    def size(self, key: str) -> int:
        return self._trouble.step("size", lambda: self._bucket.size(key))

    def first_page(self, prefix: str) -> list[Found]:
        return self._trouble.step("list", lambda: self._bucket.first_page(prefix))

    def find(self, prefix: str) -> Iterator[Found]:
        return iter(self._trouble.step("list", lambda: [*self._bucket.find(prefix)]))

    def delete(self, keys: Sequence[str]) -> None:
        self._trouble.step("delete", lambda: self._bucket.delete(keys))
