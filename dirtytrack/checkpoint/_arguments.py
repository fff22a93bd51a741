"""Arguments that users give, checked before anything is touched."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from dirtytrack._json import check
from dirtytrack.checkpoint.format.description import MAX_DIGITS
from dirtytrack.checkpoint.format.layout import check_name
from dirtytrack.checkpoint.format.structures import MAX_DESCRIPTION, MAX_DESCRIPTION_MEMORY
from dirtytrack.tracking import Region, refuse_overlaps, resolve

_MAX_META = MAX_DESCRIPTION // 2


def check_regions(regions: Mapping[str, object]) -> dict[str, object]:
    """The memory of each name: none, or memory that can be tracked; several names may have the same.

    Raises:
        TypeError, ValueError: not a mapping, no name, a bad name, memory that `Session.track` would refuse
            although it has bytes, or of which another name has a part.
    """
    if not isinstance(regions, Mapping):
        raise TypeError(f"regions is a mapping of names to memory, not {type(regions).__name__}")
    if not regions:
        raise ValueError("there is no region: name at least one piece of memory")
    names: dict[tuple[int, int], str] = {}
    for name, memory in regions.items():
        check_name(name)
        try:
            found = memory if isinstance(memory, Region) else resolve(memory, empty=True)
        except (TypeError, ValueError) as error:
            raise type(error)(f"region {name!r}: {error}") from None
        if found.nbytes:
            names.setdefault((found.address, found.nbytes), name)
    refuse_overlaps((*place, name) for place, name in names.items())
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
    try:
        check(encoded.encode(), MAX_DESCRIPTION_MEMORY // 2)
    except ValueError as error:
        raise ValueError(f"meta holds too many values: {error}; large data belongs into a region") from None
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
    else:
        _check_number(value, where)


def _check_number(value: Any, where: str) -> None:
    # What other readers could not read.
    if isinstance(value, int) and value.bit_length() > MAX_DIGITS * math.log2(10):
        raise ValueError(f"{where} is an integer of more than {MAX_DIGITS} digits")


def check_pause(pause: Any) -> AbstractContextManager[object] | None:
    """The pause.

    Raises:
        TypeError: it is no context manager.
    """
    if pause is not None and not (hasattr(type(pause), "__enter__") and hasattr(type(pause), "__exit__")):
        raise TypeError(f"pause is a context manager that stops the writers, not {pause!r}")
    checked: AbstractContextManager[object] | None = pause
    return checked
