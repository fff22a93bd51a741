"""A file of safetensors, written by its library."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from dirtytrack.checkpoint.export.parts import Part, Pieces
from dirtytrack.errors import ChainError
from dirtytrack.native import ffi

_ALIGNMENT = 64  # of each array on the way
_METADATA = "__metadata__"  # what such a file calls its own

_NUMPY = {
    *("bool", "complex64", "float16", "float32", "float64"),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
}
_FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
_OTHERS = {"bfloat16": 2, **dict.fromkeys(_FLOAT8, 1)}  # bytes of an element


def write_safetensors(pieces: Pieces, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes all parts but the twins, which the metadata names, as the library's own save_model does.

    Raises:
        ChainError: a part can't be in such a file.
        ImportError: without the library.
        OSError: as the system says.
    """
    try:
        from safetensors import SafetensorError, TensorSpec, serialize_file
    except ImportError as error:
        raise ImportError(
            'a file of safetensors needs its library: pip install "dirtytrack[export]", or choose npz'
        ) from error
    parts = [part for part in pieces.parts if part.twin is None]
    kinds = [_kind(part, pieces) for part in parts]
    places = [*_places(parts)]
    # The library takes addresses, so all of it has to be there at once.
    with pieces.memory(places.pop()) as (file, memory):
        for part, place in zip(parts, places, strict=True):
            file.seek(place)
            for piece in pieces.of(part, little=True):
                if piece.count(0) < len(piece):
                    file.write(piece)
                else:
                    file.seek(len(piece), os.SEEK_CUR)
        file.flush()
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))
        specs = {}
        for part, kind, place in zip(parts, kinds, places, strict=True):
            nbytes = part.layout.nbytes
            shape = (nbytes,) if part.layout.shape is None else part.layout.shape
            specs[part.name] = TensorSpec(dtype=kind, shape=shape, data_ptr=address + place, data_len=nbytes)
        twins = {part.name: part.twin for part in pieces.parts if part.twin is not None}
        try:
            serialize_file(specs, path, metadata={**metadata, **twins} or None)
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error), str(path)) from error


def _kind(part: Part, pieces: Pieces) -> str:
    # What the library calls the type.
    if part.name == _METADATA:
        raise ChainError(f"{part.name!r} can't be in a file of safetensors, which has its own: choose npz")
    dtype, name = part.layout.dtype, ""
    if not isinstance(dtype, dict):
        name = str(pieces.like(part).dtype.newbyteorder("=").name)
    elif dtype == {"name": dtype.get("name"), "itemsize": _OTHERS.get(str(dtype.get("name")))}:
        return str(dtype["name"])
    if name in _NUMPY:
        return name
    raise ChainError(
        f"{part.name!r} has elements of type {part.kind}, which a file of safetensors can't have: leave it "
        "out, or choose another format"
    )


def _places(parts: list[Part]) -> Iterator[int]:
    # Where each of them begins, and where the last one ends.
    at = 0
    for part in parts:
        yield at
        at += -(-part.layout.nbytes // _ALIGNMENT) * _ALIGNMENT
    yield at
