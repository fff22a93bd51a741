"""A file that numpy.load takes: a ZIP archive with an array in each member."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from dirtytrack.checkpoint.export.parts import Part, Pieces
from dirtytrack.errors import ChainError

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same contents make the same file


def write_npz(pieces: Pieces, path: Path) -> None:
    """Writes all parts, twins too.

    Raises:
        ChainError: a part can't be in such a file.
        OSError: as the system says.
    """
    _check_names([part.name for part in pieces.parts])
    headers = [_header(part, pieces) for part in pieces.parts]
    with zipfile.ZipFile(path, "x") as archive:
        for part, header in zip(pieces.parts, headers, strict=True):
            member = zipfile.ZipInfo(f"{part.name}.npy", _LONG_AGO)
            with archive.open(member, "w", force_zip64=True) as file:
                file.write(header)
                for piece in pieces.of(part):
                    file.write(piece)


def _check_names(names: Sequence[str]) -> None:
    # What unpacks such a file makes files of these names.
    there = set(names)
    for name in names:
        steps = name.split("/")
        if "\0" in name or "\\" in name or not steps[0] or ".." in steps:
            raise ChainError(f"{name!r} can't be the name of an array in a file of npz: choose safetensors")
        if f"{name}.npy" in there:
            raise ChainError(f"{name!r} and '{name}.npy' can't both be in a file of npz: choose safetensors")


def _header(part: Part, pieces: Pieces) -> bytes:
    # Of a member, as far as the first element.
    from numpy.lib import format as npy

    array = pieces.like(part)
    if isinstance(part.layout.dtype, dict) and "fields" not in part.layout.dtype:
        raise ChainError(
            f"{part.name!r} has elements of type {part.kind}, which numpy does not know: leave it out, or "
            "choose another format"
        )
    try:
        described = {
            "descr": npy.dtype_to_descr(array.dtype),
            "shape": array.shape,
            "fortran_order": False,
        }
        file = BytesIO()
        npy.write_array_header_2_0(file, described)
    except (ValueError, TypeError, RecursionError) as error:
        raise ChainError(f"{part.name!r} can't be in a file of npz: {error}") from error
    return file.getvalue()
