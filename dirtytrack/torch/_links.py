"""A small file that names a checkpoint of a chain: in a directory, or an object in a store."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any, NamedTuple

from dirtytrack.checkpoint.records import Bucket, Root, StoreOptions, is_object_store

_MOST = 1 << 16  # bytes of one


class Link(NamedTuple):
    """Where such a file is.

    Attributes:
        place: the absolute path, or the URL.
    """

    place: Path | str

    @classmethod
    def at(cls, place: str | os.PathLike[str]) -> Link:
        """The one of that path, whatever becomes the working directory, or of that URL.

        Raises:
            StoreError: a URL of a kind that is not known.
        """
        return cls(os.fspath(place) if is_object_store(place) else Path(place).absolute())

    def read(self, options: StoreOptions | None) -> dict[str, Any]:
        """What it says.

        Raises:
            FileNotFoundError: it is not there.
            ValueError, RecursionError: it says nothing of the kind.
        """
        if isinstance(self.place, Path):
            with self.place.open("rb") as opened:
                data = opened.read(_MOST)
        else:
            bucket, name = self._object(options)
            data = bytes(bucket.get_range(name, 0, _MOST))
        found = json.loads(data)
        if not isinstance(found, dict):
            raise ValueError(f"{type(found).__name__} at the top")
        return found

    def write(self, content: dict[str, Any], options: StoreOptions | None) -> None:
        """Makes it, in place of what is there; it is whole when it has its name."""
        data = json.dumps(content).encode()
        if isinstance(self.place, Path):
            self.place.parent.mkdir(parents=True, exist_ok=True)
            _replace(self.place, data)
        else:
            bucket, name = self._object(options)
            bucket.put(name, data)

    def remove(self, options: StoreOptions | None) -> None:
        """Removes it.

        Raises:
            FileNotFoundError: it is not there, if it is a path.
        """
        if isinstance(self.place, Path):
            self.place.unlink()
        else:
            bucket, name = self._object(options)
            bucket.delete([name])

    def towards(self, chain: Path | str) -> str:
        """What it is to say of where a chain is: so that both can be moved together, if both are paths."""
        if isinstance(chain, str) or isinstance(self.place, str):
            return str(chain)
        return os.path.relpath(chain, self.place.parent)

    def locate(self, chain: str) -> Path | str:
        """Where the chain is of which it says that."""
        if is_object_store(chain):
            return chain
        return Path(os.path.normpath(Path(self.place).parent / chain))

    def _object(self, options: StoreOptions | None) -> tuple[Bucket, str]:
        folder, _, name = str(self.place).rpartition("/")
        return Root.of(folder, options).bucket(), name


def _replace(file: Path, data: bytes) -> None:
    scratch = file.with_name(f".{file.name}-{secrets.token_hex(8)}")
    try:
        with scratch.open("xb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        scratch.replace(file)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
